"""What azure-keyvault-keys does with the dev vault's keys."""

from datetime import datetime, timezone

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.keyvault.keys import JsonWebKey
from test_secrets import inner_code


@pytest.mark.parametrize("size", [2048, 3072])
def test_an_rsa_key_has_its_size(keys, name, size):
    expires_on = datetime(2040, 1, 1, tzinfo=timezone.utc)
    made = keys.create_rsa_key(name, size=size, expires_on=expires_on, tags={"a": "b"})
    assert made.key_type == "RSA" and len(made.key.n) * 8 == size
    assert made.properties.expires_on == expires_on and made.properties.tags == {"a": "b"}
    assert keys.get_key(name).key.n == made.key.n
    assert keys.get_key(name).key.d is None


@pytest.mark.parametrize(("curve", "size"), [("P-256", 32), ("P-384", 48), ("P-521", 66)])
def test_an_ec_key_has_its_curve(keys, name, curve, size):
    made = keys.create_ec_key(name, curve=curve)
    assert (made.key_type, made.key.crv) == ("EC", curve)
    assert (len(made.key.x), len(made.key.y)) == (size, size)
    assert made.key_operations == ["sign", "verify"]


def test_a_key_is_imported_and_only_its_public_part_comes_back(keys, name):
    key = JsonWebKey(kty="EC", crv="P-256", x=b"\x01" * 32, y=b"\x02" * 32, d=b"\x03" * 32, key_ops=["sign"])
    keys.import_key(name, key)
    read = keys.get_key(name).key
    assert (read.x, read.y, read.d) == (b"\x01" * 32, b"\x02" * 32, None)


def test_a_symmetric_key_is_refused(keys, name):
    with pytest.raises(HttpResponseError) as refused:
        keys.create_key(name, "oct")
    assert refused.value.error.code == "BadParameter"


def test_versions_are_kept_listed_and_updated(keys, name):
    versions = [keys.create_ec_key(name).properties.version for _ in range(2)]
    assert {item.version for item in keys.list_properties_of_key_versions(name)} == set(versions)
    assert keys.get_key(name).properties.version == versions[1]
    assert keys.get_key(name, versions[0]).properties.version == versions[0]
    updated = keys.update_key_properties(name, versions[0], enabled=False, tags={"c": "d"})
    assert (updated.properties.enabled, updated.properties.tags) == (False, {"c": "d"})
    assert name in [item.name for item in keys.list_properties_of_keys()]


def test_a_key_is_deleted_recovered_and_purged(keys, name):
    keys.create_ec_key(name)
    deleted = keys.begin_delete_key(name).result()
    assert deleted.recovery_id == f"https://conformance.vault.azure.net/deletedkeys/{name}"
    with pytest.raises(ResourceNotFoundError) as gone:
        keys.get_key(name)
    assert gone.value.error.code == "KeyNotFound"
    assert name in [item.name for item in keys.list_deleted_keys()]
    with pytest.raises(ResourceExistsError) as taken:
        keys.create_ec_key(name)
    assert inner_code(taken.value) == "ObjectIsDeletedButRecoverable"
    assert keys.begin_recover_deleted_key(name).result().name == name
    keys.begin_delete_key(name).wait()
    keys.purge_deleted_key(name)
    with pytest.raises(ResourceNotFoundError):
        keys.get_deleted_key(name)
