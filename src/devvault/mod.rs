//! A Key Vault, Entra and IMDS double on loopback.
