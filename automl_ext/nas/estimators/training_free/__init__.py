"""Training-free scores: numbers from an untrained network and one batch of images that rank architectures.

Each score is a function of a network and images; :mod:`automl_ext.nas.estimators.training_free.correlations` combines
them.
"""
