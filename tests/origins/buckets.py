"""A bucket in an engine, as a test sees it beside the daemon."""

import re
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

from tests.support.origin_engines import ACCESS_KEY, SECRET_KEY, Engine


@dataclass
class Bucket:
    """A bucket with the prefix "tree".

    Attributes:
        engine: The server.
        section: The origin in a configuration.
        environment: Variables with the credentials.
    """

    engine: Engine

    @property
    def section(self) -> dict[str, Any]:
        """Return the origin in a configuration."""
        endpoint = self.engine.url.rstrip("/")
        return {"url": "s3://boot/tree", "endpoint": endpoint, "credentials": "environment"}

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables with the credentials."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def read(self, key: str) -> bytes | None:
        """Return an object; None if there is none.

        SeaweedFS answers 500 for seconds after it has started, until its parts know each other.
        """
        import obstore
        from obstore.exceptions import GenericError

        for _ in range(30):
            try:
                return bytes(obstore.get(self.open("tree"), key).bytes())
            except FileNotFoundError:
                return None
            except GenericError:
                time.sleep(1)
        raise AssertionError(f"{key} cannot be read")

    def find_unfinished(self) -> list[str]:
        """Return the keys of the uploads in parts that have not ended."""
        import obstore

        store = self.open(None)
        url = obstore.sign(store, "GET", "", timedelta(minutes=1))
        # A bucket's list of uploads is a subresource, which is not signed by obstore. moto does
        # not check signatures.
        text = urlopen(f"{url.partition('?')[0]}?uploads", timeout=10).read().decode()
        return re.findall("<Upload>.*?<Key>(.*?)</Key>", text, re.DOTALL)

    def create(self) -> None:
        """Create the bucket by a signed request of S3, which obstore does not offer."""
        import obstore

        url = obstore.sign(self.open(None), "PUT", "", timedelta(minutes=1))
        urlopen(Request(url, method="PUT"), timeout=10).close()

    def open(self, prefix: str | None) -> Any:
        """Return the store of the bucket, or of a prefix in it."""
        from obstore.store import S3Store

        return S3Store(
            "boot",
            prefix=prefix,
            endpoint=self.engine.url,
            region="us-east-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True, "timeout": "120s"},
        )


def make_bucket(engine: Engine) -> Bucket:
    """Create the bucket in an engine."""
    bucket = Bucket(engine)
    bucket.create()
    return bucket
