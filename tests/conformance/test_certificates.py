"""What azure-keyvault-certificates does with the dev vault's certificates."""

import base64
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.keyvault.certificates import CertificateContentType, CertificatePolicy, KeyCurveName, KeyType
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates
from test_secrets import inner_code

DATA = Path(__file__).parents[2] / "src" / "render" / "testdata"


def policy(**options):
    return CertificatePolicy(issuer_name="Self", subject="CN=web.example", validity_in_months=6, **options)


def pem(*names):
    return b"".join((DATA / name).read_bytes() for name in names)


def test_a_certificate_signs_itself_and_is_issued_at_once(certificates, secrets, keys, name):
    made = certificates.begin_create_certificate(name, policy(san_dns_names=["web.example"]), tags={"a": "b"}).result()
    assert certificates.get_certificate_operation(name).status == "completed"
    x509 = load_der_x509_certificate(bytes(made.cer))
    assert x509.subject.rfc4514_string() == "CN=web.example"
    x509.verify_directly_issued_by(x509)
    assert made.properties.tags == {"a": "b"} and made.properties.enabled
    assert made.properties.expires_on == x509.not_valid_after_utc
    assert bytes(made.properties.x509_thumbprint) == x509.fingerprint(SHA1())
    assert made.policy.issuer_name == "Self" and made.policy.exportable
    secret = secrets.get_secret(name)
    assert secret.properties.managed and secret.properties.version == made.properties.version
    key, certificate, _ = pkcs12.load_key_and_certificates(base64.b64decode(secret.value), None)
    assert certificate == x509 and key.public_key() == x509.public_key()
    backing = keys.get_key(name)
    assert backing.properties.managed
    assert int.from_bytes(backing.key.n) == x509.public_key().public_numbers().n


def test_a_key_that_is_not_exportable_is_not_in_the_secret(certificates, secrets, name):
    options = {"key_type": KeyType.ec, "key_curve_name": KeyCurveName.p_384, "exportable": False}
    wanted = policy(content_type=CertificateContentType.pem, **options)
    certificates.begin_create_certificate(name, wanted).result()
    secret = secrets.get_secret(name)
    assert secret.properties.content_type == "application/x-pem-file"
    assert "PRIVATE KEY" not in secret.value
    assert load_pem_x509_certificates(secret.value.encode())[0].public_key().curve.name == "secp384r1"


def test_pem_is_imported_with_its_chain(certificates, secrets, name):
    content = pem("ec.key", "ec.crt", "intermediate.crt", "root.crt")
    wanted = CertificatePolicy(issuer_name="Unknown", content_type=CertificateContentType.pem)
    made = certificates.import_certificate(name, content, policy=wanted)
    assert load_der_x509_certificate(bytes(made.cer)) == load_pem_x509_certificates(pem("ec.crt"))[0]
    value = secrets.get_secret(name).value.encode()
    assert load_pem_x509_certificates(value) == load_pem_x509_certificates(content)
    assert load_pem_private_key(value, None).public_key() == load_pem_private_key(pem("ec.key"), None).public_key()


@pytest.mark.parametrize(("file", "password"), [("modern.pfx", None), ("legacy.pfx", None), ("password.pfx", "changeit")])
def test_a_pfx_is_imported(certificates, secrets, name, file, password):
    made = certificates.import_certificate(name, base64.b64decode(pem(file)), password=password)
    value = base64.b64decode(secrets.get_secret(name).value)
    key, certificate, _ = pkcs12.load_key_and_certificates(value, None)
    assert certificate == load_der_x509_certificate(bytes(made.cer))
    assert key.public_key() == certificate.public_key()


def test_what_can_not_be_imported_is_a_bad_parameter(certificates, name):
    for content, password in [(b"no certificate", None), (base64.b64decode(pem("password.pfx")), "wrong")]:
        with pytest.raises(HttpResponseError) as refused:
            certificates.import_certificate(name, content, password=password)
        assert refused.value.error.code == "BadParameter"


def test_another_issuer_is_refused(certificates, name):
    with pytest.raises(HttpResponseError) as refused:
        certificates.begin_create_certificate(name, CertificatePolicy(issuer_name="Someone", subject="CN=x"))
    assert refused.value.error.code == "BadParameter"


def test_versions_are_kept_and_listed(certificates, name):
    versions = [certificates.begin_create_certificate(name, policy()).result().properties.version for _ in range(2)]
    assert {item.version for item in certificates.list_properties_of_certificate_versions(name)} == set(versions)
    for version in versions:
        assert certificates.get_certificate_version(name, version).properties.version == version
    assert certificates.get_certificate(name).properties.version == versions[1]
    assert name in [item.name for item in certificates.list_properties_of_certificates()]
    assert certificates.get_certificate_policy(name).subject == "CN=web.example"


def test_a_disabled_certificate_has_a_disabled_secret(certificates, secrets, name):
    made = certificates.begin_create_certificate(name, policy()).result()
    updated = certificates.update_certificate_properties(name, made.properties.version, enabled=False, tags={"c": "d"})
    assert (updated.properties.enabled, updated.properties.tags) == (False, {"c": "d"})
    with pytest.raises(HttpResponseError) as disabled:
        secrets.get_secret(name)
    assert inner_code(disabled.value) == "SecretDisabled"


def test_a_certificate_is_deleted_recovered_and_purged_with_what_backs_it(certificates, secrets, keys, name):
    certificates.begin_create_certificate(name, policy()).result()
    deleted = certificates.begin_delete_certificate(name).result()
    assert deleted.recovery_id == f"https://conformance.vault.azure.net/deletedcertificates/{name}"
    for get in [certificates.get_certificate, secrets.get_secret, keys.get_key]:
        with pytest.raises(ResourceNotFoundError):
            get(name)
    assert name in [item.name for item in certificates.list_deleted_certificates()]
    with pytest.raises(ResourceExistsError) as taken:
        certificates.begin_create_certificate(name, policy())
    assert inner_code(taken.value) == "ObjectIsDeletedButRecoverable"
    certificates.begin_recover_deleted_certificate(name).result()
    assert secrets.get_secret(name).name == name and keys.get_key(name).name == name
    certificates.begin_delete_certificate(name).wait()
    certificates.purge_deleted_certificate(name)
    with pytest.raises(ResourceNotFoundError):
        certificates.get_deleted_certificate(name)
