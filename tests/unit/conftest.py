"""Fixtures of more than one folder of tests."""

from hypothesis import settings

from tests.s3 import _proxy, behind, bucket, impatient, moto_url, new_client, s3

__all__ = ["_proxy", "behind", "bucket", "impatient", "moto_url", "new_client", "s3"]

settings.register_profile("flexray", deadline=None)  # no test asserts a time
settings.load_profile("flexray")
