from tests.unit.preflight.doctor.conftest import config_of  # noqa: F401  a fixture
