//! A Key Vault, Entra and IMDS double on loopback.
mod entra;
mod exchange;
mod faults;
mod identity;
mod imds;
mod keyvault;
mod operation;
mod refusal;
mod requests;
mod secret;
mod seed;
mod store;
mod tokens;
mod world;
