"""The rest of AWS, as boto3 sees it."""
