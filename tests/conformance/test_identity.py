"""What azure-identity does with the dev vault's Entra and IMDS."""

import base64
import json
import time

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.identity import ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential
from conftest import APP, APP_SECRET, SYSTEM, TENANT, client

CLOSED = "closed.vault.azure.net"
ENTRA = "login.microsoftonline.com"
IMDS = "169.254.169.254"
VAULT_SCOPE = "https://vault.azure.net/.default"


def reads(credential, vault="conformance.vault.azure.net"):
    """Reads a secret that is there with this credential."""
    with client(credential, vault) as secrets:
        return secrets.get_secret("a").value


@pytest.fixture(autouse=True)
def secret(control):
    control("PUT", "vaults/conformance/secrets/a", {"value": "one"})


def jwt(**claims):
    """A JWT as a Pod's ServiceAccount has one. Its signature is not looked at."""
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    claims = {
        "iss": "https://issuer.example",
        "sub": "system:serviceaccount:runners:runners",
        "aud": ["api://AzureADTokenExchange"],
        "exp": int(time.time()) + 600,
    } | claims
    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.c2lnbmF0dXJl"


def federated(tmp_path, **claims):
    token_file = tmp_path / "token"
    token_file.write_text(jwt(**claims))
    return WorkloadIdentityCredential(tenant_id=TENANT, client_id=APP, token_file_path=str(token_file))


def test_a_client_secret(control):
    # A vault that no client of this process has been challenged by.
    control("PUT", "vaults/challenging")
    control("PUT", "vaults/challenging/secrets/a", {"value": "one"})
    control("DELETE", "requests")
    assert reads(ClientSecretCredential(TENANT, APP, APP_SECRET), "challenging.vault.azure.net") == "one"
    requests = control.requests()
    assert requests["operations"][ENTRA]["token"] == 1
    assert requests["challenges"] == 1
    assert requests["refusedConnects"] == {}


def test_a_wrong_client_secret():
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        reads(ClientSecretCredential(TENANT, APP, "wrong"))


def test_an_unknown_application():
    with pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
        reads(ClientSecretCredential(TENANT, "33333333-3333-4333-8333-333333333333", "any"))


def test_an_unknown_tenant():
    with pytest.raises(ClientAuthenticationError):
        reads(ClientSecretCredential("88888888-8888-4888-8888-888888888888", APP, APP_SECRET))


def test_a_federated_service_account(tmp_path):
    assert reads(federated(tmp_path)) == "one"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"sub": "system:serviceaccount:runners:other"}, "AADSTS700213"),
        ({"iss": "https://elsewhere.example"}, "AADSTS700213"),
        ({"aud": "https://kubernetes.default.svc"}, "AADSTS700212"),
        ({"exp": 1}, "AADSTS700024"),
    ],
)
def test_an_assertion_that_does_not_match(tmp_path, claims, code):
    with pytest.raises(ClientAuthenticationError, match=code):
        reads(federated(tmp_path, **claims))


def test_a_managed_identity_by_client_id(control):
    control("DELETE", "requests")
    assert reads(ManagedIdentityCredential(client_id=APP)) == "one"
    assert control.requests()["operations"][IMDS] == {"token": 1}


def test_the_system_assigned_identity():
    assert ManagedIdentityCredential().get_token(VAULT_SCOPE).token
    assert reads(ManagedIdentityCredential(), CLOSED) == "for few"


def test_a_managed_identity_that_is_not_there():
    with pytest.raises(ClientAuthenticationError, match="Identity not found"):
        reads(ManagedIdentityCredential(client_id="33333333-3333-4333-8333-333333333333"))


def test_access_is_by_identity():
    assert reads(ManagedIdentityCredential(client_id=SYSTEM), CLOSED) == "for few"
    with pytest.raises(HttpResponseError) as forbidden:
        reads(ManagedIdentityCredential(client_id=APP), CLOSED)
    assert forbidden.value.status_code == 403
    assert forbidden.value.response.json()["error"]["innererror"]["code"] == "ForbiddenByRbac"


def test_another_cloud_has_its_own_resource(control):
    assert reads(ManagedIdentityCredential(client_id=APP), "elsewhere.vault.azure.cn") == "from another cloud"


class Fixed:
    """Gives the same token whatever it is asked for."""

    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, int(time.time()) + 3600)


def test_a_token_for_another_audience_is_rejected():
    other = ManagedIdentityCredential(client_id=APP).get_token("https://management.azure.com/.default")
    with pytest.raises(ClientAuthenticationError) as rejected:
        reads(Fixed(other.token))
    assert rejected.value.status_code == 401
    assert "AKV10022: Invalid audience" in rejected.value.response.headers["WWW-Authenticate"]
    assert 'error="invalid_token"' in rejected.value.response.headers["WWW-Authenticate"]


def test_a_made_up_token_is_rejected():
    with pytest.raises(ClientAuthenticationError):
        reads(Fixed("made-up"))


def test_an_expired_token_is_acquired_again(control):
    control("PUT", "tokens", {"lifetimeSeconds": 2})
    credential = ManagedIdentityCredential(client_id=APP)
    first = credential.get_token(VAULT_SCOPE).token
    with client(credential) as secrets:
        assert secrets.get_secret("a").value == "one"
        time.sleep(3)
        with pytest.raises(ClientAuthenticationError):
            reads(Fixed(first))
        control("DELETE", "requests")
        assert secrets.get_secret("a").value == "one"
    requests = control.requests()
    assert requests["operations"][IMDS]["token"] >= 1
    assert requests["rejectedTokens"] == 0


def test_tokens_can_be_expired_at_once(control):
    token = ManagedIdentityCredential(client_id=APP).get_token(VAULT_SCOPE).token
    assert reads(Fixed(token)) == "one"
    control("POST", "tokens/expire")
    with pytest.raises(ClientAuthenticationError):
        reads(Fixed(token))


def test_hosts_that_are_not_served_are_out_of_reach(control):
    with pytest.raises(ServiceRequestError):
        reads(ManagedIdentityCredential(client_id=APP), "unknown.vault.azure.net")
    assert control.requests()["refusedConnects"] == {"unknown.vault.azure.net": 1}


def test_another_certificate_authority_is_not_trusted(control):
    control("PUT", "vaults/conformance/faults", [{"otherCa": True}])
    with pytest.raises(ServiceRequestError, match="certificate verify failed"):
        reads(ManagedIdentityCredential(client_id=APP))
