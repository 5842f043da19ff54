"""Credentials, clients and the control endpoint. run.sh has started the dev vault and pointed everything at it."""

import json
import os
import urllib.error
import urllib.request
import uuid

import pytest
from azure.identity import ManagedIdentityCredential
from azure.keyvault.certificates import CertificateClient
from azure.keyvault.keys import KeyClient
from azure.keyvault.secrets import SecretClient

APP = "11111111-1111-4111-8111-111111111111"
SYSTEM = "22222222-2222-4222-8222-222222222222"
TENANT = "99999999-9999-4999-8999-999999999999"
APP_SECRET = "only-for-the-conformance-test"


class Control:
    """The dev vault's control endpoint."""

    def __call__(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{os.environ['KEYTIDE_DEV_VAULT']}/control/{path}", data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as response:
            text = response.read()
        return json.loads(text) if text else None

    def requests(self):
        return self("GET", "requests")


@pytest.fixture
def control():
    control = Control()
    control("DELETE", "requests")
    yield control
    control("PUT", "tokens", {"lifetimeSeconds": 3600})
    for host in ["conformance", "many", "closed", "entra", "imds"]:
        control("DELETE", f"vaults/{host}/faults")


def client(credential, vault="conformance.vault.azure.net", **options):
    # Retries would hide what the first answer was.
    return SecretClient(f"https://{vault}", credential, retry_total=options.pop("retry_total", 0), **options)


@pytest.fixture
def secrets():
    with ManagedIdentityCredential(client_id=APP) as credential, client(credential) as secrets:
        yield secrets


VAULT = "https://conformance.vault.azure.net"


@pytest.fixture
def certificates():
    with ManagedIdentityCredential(client_id=APP) as credential:
        with CertificateClient(VAULT, credential, retry_total=0) as certificates:
            yield certificates


@pytest.fixture
def keys():
    with ManagedIdentityCredential(client_id=APP) as credential, KeyClient(VAULT, credential, retry_total=0) as keys:
        yield keys


@pytest.fixture
def name():
    return f"s-{uuid.uuid4().hex}"
