"""Rules of the support source on small example files, and counts on the pinned package."""

import pytest

from data.conversation import ReadRows, text_of
from data.packages import cached_wheel
from data.sources import aws_cli

FILES = {
    "secretsmanager/delete-resource-policy.rst": b"""**To delete the resource-based policy \
attached to a secret**

The following ``delete-resource-policy`` example deletes the policy. ::

    aws secretsmanager delete-resource-policy \\
        --secret-id MyTestSecret

Output::

    { "Name": "MyTestSecret" }
""",
    "s3/cp.rst": b"""**Example 1: Copying a ``.jpg`` file to S3.**\r
\r
The following ``cp`` command copies a file::\r
\r
    $ aws s3 cp test.txt s3://amzn-s3-demo-bucket/test2.txt\r
\r
**Example 2:To list a bucket first**\r
\r
    aws s3 ls s3://amzn-s3-demo-bucket\r
    aws s3 cp test.txt s3://amzn-s3-demo-bucket/test2.txt\r
\r
**Example 3**\r
\r
    aws s3 cp a b\r
\r
**To read about copying**\r
\r
No command here; aws s3 cp is described elsewhere.\r
""",
    "ec2/wait/image-exists.rst": b"""**To wait until an image exists**:

    aws ec2 wait image-exists --image-ids ami-0abcdef1234567890

**To wait until an image exists**

    aws ec2 wait image-exists --image-ids ami-0abcdef1234567891
""",
    "ec2/create-tags.rst": b"**To tag a resource**\n\n    aws ec2 create-tags --tags a=b\n",
    "ecs/tag-resource.rst": b"**To tag a resource**\n\n    aws ecs tag-resource --tags a=b\n",
    "iam/delete-user.rst": b"**To delete a user**\n\n    aws iam delete-user --user-name Bob\n",
    "iam/delete-login-profile.rst": b"**To delete a User**\n\n  aws iam delete-login-profile\n",
    "global_options.rst": b"``--debug`` (boolean)\n",
    "broken/latin.rst": b"**To caf\xe9**\n\n    aws broken latin\n",
}


@pytest.fixture
def rows() -> ReadRows:
    return aws_cli.parse_examples(FILES)


def test_question_and_answer_read_as_documented(rows: ReadRows) -> None:
    first = rows.conversations[0]
    assert first.id == "secretsmanager/delete-resource-policy.rst#1"
    assert [message["content"] for message in first.messages] == [
        "To delete the resource-based policy attached to a secret (secretsmanager). "
        "Which AWS CLI command do I run?",
        "aws secretsmanager delete-resource-policy",
    ]


def test_numbering_mark_up_and_nested_operations(rows: ReadRows) -> None:
    by_id = {row.id: row.messages for row in rows.conversations}
    assert text_of(by_id["s3/cp.rst#1"][0]).startswith("Copying a .jpg file to S3 (s3). Which")
    assert by_id["s3/cp.rst#1"][1]["content"] == "aws s3 cp"
    assert by_id["ec2/wait/image-exists.rst#1"][1]["content"] == "aws ec2 wait image-exists"


def test_every_example_is_kept_or_counted(rows: ReadRows) -> None:
    assert [row.id for row in rows.conversations] == [
        "secretsmanager/delete-resource-policy.rst#1",
        "s3/cp.rst#1",
        "ec2/wait/image-exists.rst#1",
        "ec2/create-tags.rst#1",
        "ecs/tag-resource.rst#1",
    ]
    assert rows.dropped == {
        "command differs from the file's name": 1,
        "title without a task": 1,
        "no command": 1,
        "file without a titled example": 1,
        "repeated question": 1,
        "question with several answers": 2,
    }
    assert [(reject.where, reject.reason) for reject in rows.rejects] == [
        ("broken/latin.rst", "not UTF-8: invalid continuation byte")
    ]
    assert rows.num_read == len(rows.conversations) + len(rows.rejects) + sum(rows.dropped.values())


def test_the_pinned_package() -> None:
    wheel = cached_wheel(
        package=aws_cli.PACKAGE, version=aws_cli.VERSION, sha256=aws_cli.WHEEL_SHA256
    )
    if not wheel.exists():
        pytest.skip(f"{wheel.name} is not in the cache: `tunery prepare` of its demo fetches it")
    rows = aws_cli.load()
    assert rows.num_read == 6_884
    assert len(rows.conversations) == 6_461
    assert rows.num_read == len(rows.conversations) + len(rows.rejects) + sum(rows.dropped.values())
    assert len({row.id for row in rows.conversations}) == 6_461
    assert all(text_of(row.messages[1]).startswith("aws ") for row in rows.conversations)
    assert rows.rejects == []
