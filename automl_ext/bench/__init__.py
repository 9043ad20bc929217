"""``automl-ext bench``: every op beside eager PyTorch, ``torch.compile`` and the packages people use.

``cases`` says what is measured, ``checking`` whether it is right, ``timing`` how long it takes, ``measure`` puts these
together into rows, ``targets`` holds what is asked of them. Only torch and numpy are imported, so that
``python -m automl_ext.bench`` runs where nothing else is installed.
"""
