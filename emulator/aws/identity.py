"""Who asks, and what they may: IAM's SimulatePrincipalPolicy, which moto 5.2.5 lacks, and STS's GetCallerIdentity.

To moto everybody is a user; the SDK looks for a role of the caller's. So whoever shows keys that moto does not know has
taken the default role. Everything is allowed, as it is by moto itself.
"""

from __future__ import annotations

import json
import re
from xml.sax.saxutils import escape

from emulator.aws.moto_app import Moto
from emulator.aws.request import Reply, Request
from emulator.protocol.errors import ValidationException
from emulator.settings import ROLE_NAME

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {
                "Service": ["sagemaker.amazonaws.com", "lambda.amazonaws.com", "bedrock-agentcore.amazonaws.com"]
            },
            "Action": "sts:AssumeRole",
        }
    ],
}


def create_default_role(moto: Moto) -> None:
    """Have the default role be there."""
    backend = moto.backend("iam", "aws")
    if not any(role.name == ROLE_NAME for role in backend.roles.values()):
        backend.create_role(
            role_name=ROLE_NAME,
            assume_role_policy_document=json.dumps(_TRUST),
            path="/",
            permissions_boundary=None,
            description="Whoever asks the emulator has taken this role",
            tags=[],
            max_session_duration="3600",
        )


def caller_identity(reply: Reply, account: str) -> Reply:
    """What moto answers GetCallerIdentity, with its user replaced by the default role as somebody has taken it."""
    arn = f"arn:aws:sts::{account}:assumed-role/{ROLE_NAME}/job-runtime-local"
    body, count = re.subn(rb"arn:aws[a-z-]*:sts::[0-9]{12}:user/moto", arn.encode(), reply.body)
    if not count:
        return reply
    body = re.sub(rb"<UserId>[^<]*</UserId>", b"<UserId>AROAJOBRUNTIMELOCAL0:job-runtime-local</UserId>", body)
    headers = [(name, value) for name, value in reply.headers if name != b"content-length"]
    return Reply(reply.status, headers, body)


def simulate_principal_policy(request: Request) -> Reply:
    """Allow every action on every resource. Raises ValidationException for a request without actions."""
    form = request.form
    actions = [value for name, value in form.items() if name.startswith("ActionNames.member.")]
    if not actions or "PolicySourceArn" not in form:
        raise ValidationException("PolicySourceArn and ActionNames must be given")
    resources = [value for name, value in form.items() if name.startswith("ResourceArns.member.")] or ["*"]
    results = "".join(
        f"<member><EvalActionName>{escape(action)}</EvalActionName>"
        f"<EvalResourceName>{escape(resources[0])}</EvalResourceName><EvalDecision>allowed</EvalDecision>"
        "<MatchedStatements/><MissingContextValues/></member>"
        for action in actions
    )
    body = (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        f"<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>{results}"
        "</EvaluationResults></SimulatePrincipalPolicyResult>"
        "<ResponseMetadata><RequestId>local</RequestId></ResponseMetadata></SimulatePrincipalPolicyResponse>"
    )
    return Reply(200, [(b"content-type", b"text/xml")], body.encode())
