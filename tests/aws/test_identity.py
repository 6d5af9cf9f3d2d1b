"""Who asks, and what they may."""

from __future__ import annotations

import httpx2

from emulator.server import Server
from emulator.settings import ROLE_NAME
from tests.aws.conftest import ACCOUNT, client


def test_whoever_asks_has_taken_a_role_that_exists_and_that_sagemaker_may_take(aws: Server) -> None:
    identity = client(aws, "sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT
    kind, name, _ = identity["Arn"].split(":")[-1].split("/")
    assert (kind, name) == ("assumed-role", ROLE_NAME)
    role = client(aws, "iam").get_role(RoleName=name)["Role"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert "sagemaker.amazonaws.com" in statement["Principal"]["Service"]


def test_who_has_taken_another_role_is_told_so(aws: Server) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/other"
    sts = client(aws, "sts")
    taken = sts.assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    theirs = client(aws, "sts")
    theirs._request_signer._credentials = type(theirs._request_signer._credentials)(
        taken["AccessKeyId"], taken["SecretAccessKey"], taken["SessionToken"]
    )
    assert theirs.get_caller_identity()["Arn"].endswith(":assumed-role/other/me")


def test_who_has_no_keys_yet_gets_some_for_a_token(aws: Server) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/web"
    answer = client(aws, "sts").assume_role_with_web_identity(
        RoleArn=role, RoleSessionName="me", WebIdentityToken="t" * 4
    )
    assert answer["AssumedRoleUser"]["Arn"].endswith(":assumed-role/web/me")
    form = {"Action": "CreateUser", "UserName": "u"}
    assert "<Code>InvalidAction</Code>" in httpx2.post(aws.url, data=form).text


def test_every_action_is_allowed(aws: Server) -> None:
    actions = [f"s3:Action{number}" for number in range(11)]
    pages = (
        client(aws, "iam")
        .get_paginator("simulate_principal_policy")
        .paginate(PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:role/any", ActionNames=actions)
    )
    results = [each for page in pages for each in page["EvaluationResults"]]
    assert [each["EvalActionName"] for each in results] == actions
    assert {each["EvalDecision"] for each in results} == {"allowed"}
