from tests.body.models import body_models

__all__ = ["body_models"]
