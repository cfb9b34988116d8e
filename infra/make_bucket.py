"""Make a bucket in the store that AWS's variables name, unless it is there: make_bucket.py NAME."""

import sys

import boto3
from botocore.exceptions import ClientError

store, name = boto3.client("s3"), sys.argv[1]
try:
    store.create_bucket(Bucket=name)
except ClientError as error:
    if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
        raise
store.head_bucket(Bucket=name)  # refused where it is somebody else's
