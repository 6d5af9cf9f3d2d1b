"""The rest of AWS behind the same port: moto, in this process, and small modules of ours for what it lacks.

moto is the extra `aws`. Nothing of it is imported before the first request for it.
"""

from emulator.aws.request import service_of
from emulator.aws.services import OtherServices

__all__ = ["OtherServices", "service_of"]
