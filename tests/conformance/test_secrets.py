"""What azure-keyvault-secrets does with the dev vault's secrets."""

from datetime import datetime, timedelta, timezone

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import ApiVersion
from conftest import APP, client


def inner_code(error):
    return error.response.json()["error"]["innererror"]["code"]


def test_a_secret_is_created_and_read(secrets, name):
    not_before = datetime(2020, 1, 1, tzinfo=timezone.utc)
    expires_on = datetime(2040, 1, 1, tzinfo=timezone.utc)
    written = secrets.set_secret(
        name, "välue", content_type="text/plain", tags={"app": "web"}, not_before=not_before, expires_on=expires_on
    )
    read = secrets.get_secret(name)
    assert read.value == "välue"
    assert read.id == written.id
    properties = read.properties
    assert properties.vault_url == "https://conformance.vault.azure.net"
    assert properties.enabled and not properties.managed
    assert (properties.content_type, properties.tags) == ("text/plain", {"app": "web"})
    assert (properties.not_before, properties.expires_on) == (not_before, expires_on)
    assert properties.created_on == properties.updated_on
    assert abs(datetime.now(timezone.utc) - properties.updated_on) < timedelta(seconds=5)
    assert (properties.recovery_level, properties.recoverable_days) == ("Recoverable+Purgeable", 90)
    assert len(properties.version) == 32


@pytest.mark.parametrize("version", [version for version in ApiVersion if version != "2016-10-01"])
def test_every_api_version_of_the_sdk_is_served(version, name):
    with ManagedIdentityCredential(client_id=APP) as credential, client(credential, api_version=version) as secrets:
        secrets.set_secret(name, "1")
        assert secrets.get_secret(name).value == "1"


def test_sixty_secrets_come_in_three_pages(control):
    for number in range(60):
        control("PUT", f"vaults/many/secrets/s{number:02}", {"value": "x"})
    control("DELETE", "requests")
    with ManagedIdentityCredential(client_id=APP) as credential, client(credential, "many.vault.azure.net") as secrets:
        pages = [list(page) for page in secrets.list_properties_of_secrets().by_page()]
    assert [len(page) for page in pages] == [25, 25, 10]
    listed = [item for page in pages for item in page]
    assert {item.name for item in listed} == {f"s{number:02}" for number in range(60)}
    assert all(item.version is None for item in listed)
    assert control.requests()["operations"]["many.vault.azure.net"] == {"list": 3}


def test_a_smaller_page_can_be_asked_for(secrets, control):
    for number in range(3):
        control("PUT", f"vaults/conformance/secrets/p{number}", {"value": "x"})
    pages = secrets.list_properties_of_secrets(max_page_size=2).by_page()
    assert len(list(next(pages))) == 2


def test_versions_are_kept_and_listed(secrets, name):
    versions = {secrets.set_secret(name, value).properties.version: value for value in ["1", "2", "3"]}
    assert {item.version for item in secrets.list_properties_of_secret_versions(name)} == set(versions)
    for version, value in versions.items():
        assert secrets.get_secret(name, version).value == value
    assert secrets.get_secret(name).value == "3"


def test_attributes_and_tags_are_updated_in_place(secrets, name):
    before = secrets.set_secret(name, "1", content_type="text/plain", tags={"a": "b"})
    expires_on = datetime(2041, 1, 1, tzinfo=timezone.utc)
    updated = secrets.update_secret_properties(name, tags={"c": "d"}, expires_on=expires_on)
    assert updated.version == before.properties.version
    assert (updated.tags, updated.content_type, updated.expires_on) == ({"c": "d"}, "text/plain", expires_on)
    by_version = secrets.update_secret_properties(name, before.properties.version, content_type="text/html")
    assert by_version.content_type == "text/html"
    assert secrets.get_secret(name).value == "1"


def test_a_secret_is_deleted_recovered_and_purged(secrets, name):
    secrets.set_secret(name, "1")
    deleted = secrets.begin_delete_secret(name).result()
    assert deleted.recovery_id == f"https://conformance.vault.azure.net/deletedsecrets/{name}"
    assert deleted.scheduled_purge_date - deleted.deleted_date == timedelta(days=90)
    with pytest.raises(ResourceNotFoundError) as gone:
        secrets.get_secret(name)
    assert gone.value.error.code == "SecretNotFound"
    assert name in [item.name for item in secrets.list_deleted_secrets()]
    assert secrets.get_deleted_secret(name).name == name
    with pytest.raises(ResourceExistsError) as taken:
        secrets.set_secret(name, "2")
    assert inner_code(taken.value) == "ObjectIsDeletedButRecoverable"
    assert secrets.begin_recover_deleted_secret(name).result().name == name
    assert secrets.get_secret(name).value == "1"
    secrets.begin_delete_secret(name).wait()
    secrets.purge_deleted_secret(name)
    with pytest.raises(ResourceNotFoundError):
        secrets.get_deleted_secret(name)
    assert secrets.set_secret(name, "3").value == "3"


def test_a_missing_secret_is_not_found(secrets, name):
    with pytest.raises(ResourceNotFoundError) as missing:
        secrets.get_secret(name)
    assert missing.value.error.code == "SecretNotFound"
    secrets.set_secret(name, "1")
    with pytest.raises(ResourceNotFoundError):
        secrets.get_secret(name, "0" * 32)


def test_a_disabled_secret_is_forbidden_until_it_is_enabled(secrets, name):
    secrets.set_secret(name, "1", enabled=False)
    with pytest.raises(HttpResponseError) as disabled:
        secrets.get_secret(name)
    assert disabled.value.status_code == 403
    assert inner_code(disabled.value) == "SecretDisabled"
    secrets.update_secret_properties(name, enabled=True)
    assert secrets.get_secret(name).value == "1"


def test_an_expired_secret_is_served(secrets, name):
    secrets.set_secret(name, "1", expires_on=datetime(2020, 1, 1, tzinfo=timezone.utc))
    assert secrets.get_secret(name).value == "1"


def test_names_and_values_have_limits(secrets, name):
    secrets.set_secret(name, "x" * 25_600)
    for arguments in [(name, "x" * 25_601), ("under_score", "x")]:
        with pytest.raises(HttpResponseError) as refused:
            secrets.set_secret(*arguments)
        assert (refused.value.status_code, refused.value.error.code) == (400, "BadParameter")


def test_throttling_is_waited_for(control, name):
    control("PUT", f"vaults/conformance/secrets/{name}", {"value": "1"})
    control("PUT", "vaults/conformance/faults", [{"match": {"operation": "get"}, "times": 1, "status": 429,
                                                  "retryAfter": 1}])
    with ManagedIdentityCredential(client_id=APP) as credential, client(credential, retry_total=3) as secrets:
        assert secrets.get_secret(name).value == "1"
    statuses = control.requests()["statuses"]["conformance.vault.azure.net"]
    assert (statuses["429"], statuses["200"]) == (1, 1)
