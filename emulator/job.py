"""Jobs, as far as the runtime knows them: by their ARN."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobArn:
    """The parts of `arn:PARTITION:sagemaker:REGION:ACCOUNT:job/CATEGORY/NAME`."""

    partition: str
    region: str
    account: str
    category: str
    name: str

    @classmethod
    def parse(cls, text: str) -> JobArn:
        """Take apart an ARN that has already been checked against the service model's pattern.

        Raises ValueError if it is no job ARN.
        """
        try:
            arn, partition, service, region, account, resource = text.split(":")
            kind, category, name = resource.split("/")
        except ValueError:
            raise ValueError(f"not a job ARN: {text!r}") from None
        if (arn, service, kind) != ("arn", "sagemaker", "job") or "\0" in text:
            raise ValueError(f"not a job ARN: {text!r}")
        return cls(partition, region, account, category, name)

    def __str__(self) -> str:
        return f"arn:{self.partition}:sagemaker:{self.region}:{self.account}:job/{self.category}/{self.name}"
