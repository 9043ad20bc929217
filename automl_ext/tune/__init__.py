"""Tuning of hyper-parameters: search spaces, samplers, studies, and experience from earlier studies."""
