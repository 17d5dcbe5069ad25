from tests.random_models import make_engine, make_model, make_prompts  # noqa: F401  fixtures
