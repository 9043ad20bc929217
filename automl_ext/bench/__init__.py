"""``automl-ext bench``: measure the ops compared with eager PyTorch, ``torch.compile`` and other packages.

``cases`` defines the problems, ``checking`` compares results with the reference, ``timing`` measures, ``measure``
combines these into rows, and ``targets`` holds the required speeds. The package imports torch and numpy only, so that
:func:`automl_ext.bench.command.bench` runs without the other dependencies.
"""
