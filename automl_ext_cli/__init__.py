"""The console script ``automl-ext``.

It is outside of the package ``automl_ext``, whose import loads torch and takes seconds: help must not wait for it.
"""
