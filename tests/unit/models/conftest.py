from tests.random_models import (  # noqa: F401  fixtures
    make_brief_model,
    make_engine,
    make_model,
    make_prompts,
)
