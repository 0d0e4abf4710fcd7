"""Handwritten digits: from scikit-learn's images to a model that answers over HTTP."""
