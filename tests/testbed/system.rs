//! Keytide as users have it: the chart installed, the daemon with the token of the ServiceAccount that the chart made, and
//! the dev vault in the place of Azure.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use keytide::devvault::{DevVault, Options, Seed};

use super::Result;
use super::daemon::Daemon;
use super::shared::Testbed;

/// The chart of this checkout.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/keytide");

/// Namespace and release of the daemon.
pub const RELEASE: &str = "keytide";

/// The parts that stay while daemons come and go.
pub struct System {
    vault: Arc<DevVault>,
    ca: PathBuf,
    kubeconfig: PathBuf,
    program: PathBuf,
    namespace: String,
    /// The chart names it and the Lease alike.
    service_account: String,
    /// What goes with the chart's values, which daemons outside of the cluster are not given by it.
    flags: Vec<String>,
}

impl System {
    /// Starts the dev vault and installs the chart with `values` (arguments of Helm), but no daemon yet.
    pub async fn start(
        testbed: &Testbed,
        program: &Path,
        seed: &str,
        values: &[&str],
    ) -> Result<Self> {
        let mut arguments = vec![
            "upgrade",
            "--install",
            RELEASE,
            CHART,
            "--namespace",
            RELEASE,
            "--create-namespace",
        ];
        // kwok runs no containers, so the daemon runs beside the cluster.
        arguments.extend(["--set", "replicaCount=0", "--set", "crds.upgrade=false"]);
        arguments.extend(values);
        testbed.helm(&arguments).await.ok();
        Self::installed(testbed, program, seed, RELEASE, RELEASE).await
    }

    /// The same where the chart is installed already, in `namespace` and with this ServiceAccount.
    pub async fn installed(
        testbed: &Testbed,
        program: &Path,
        seed: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self> {
        let vault = start_vault(Options {
            seed: Seed::parse(seed)?,
            ..Options::default()
        })?;
        let ca = testbed.log_file("dev-vault-ca.pem");
        std::fs::write(&ca, vault.ca_pem())?;
        let kubeconfig = testbed
            .service_account_kubeconfig(namespace, service_account)
            .await;
        Ok(Self {
            vault,
            ca,
            kubeconfig,
            program: program.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            flags: Vec::new(),
        })
    }

    /// The same, with flags for every daemon.
    pub fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// The Azure of this system.
    pub fn vault(&self) -> &DevVault {
        &self.vault
    }

    /// What a program beside the cluster is to be told so that it finds this Azure: variables, and the file with its CA.
    pub fn environment(&self) -> (Vec<(&'static str, String)>, &Path) {
        let proxy = self.vault.proxy();
        let variables = vec![
            ("HTTPS_PROXY", proxy.clone()),
            ("HTTP_PROXY", proxy),
            ("NO_PROXY", "127.0.0.1,localhost,.vault.invalid".to_owned()),
        ];
        (variables, &self.ca)
    }

    /// Starts a daemon and waits until it is ready; more arguments win over those that tests have in common.
    pub async fn daemon(
        &self,
        log: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Daemon> {
        let mut daemon = self.start_daemon(log, arguments, environment)?;
        daemon.wait_ready().await?;
        Ok(daemon)
    }

    /// Starts a daemon.
    pub fn start_daemon(
        &self,
        log: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Daemon> {
        let (azure, ca) = self.environment();
        let (ca, kubeconfig) = (
            ca.display().to_string(),
            self.kubeconfig.display().to_string(),
        );
        let mut all = vec!["run", "--namespace", &self.namespace, "--ca-bundle", &ca];
        all.extend(["--leader-elect-resource-name", &self.service_account]);
        all.extend(self.flags.iter().map(String::as_str));
        all.extend(arguments);
        let mut variables = vec![("KUBECONFIG", kubeconfig.as_str())];
        variables.extend(azure.iter().map(|(name, value)| (*name, value.as_str())));
        variables.extend(environment);
        Daemon::start(&self.program, &all, &variables, log)
    }
}

/// The dev vault lives on the runtime that starts it; tests have one each, so it gets its own.
pub fn start_vault(options: Options) -> Result<Arc<DevVault>> {
    let (send, receive) = mpsc::channel();
    thread::Builder::new()
        .name("dev-vault".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let vault = DevVault::start(options).await;
                // A receiver that is gone asked for no vault.
                let _ = send.send(vault.map(Arc::new));
                std::future::pending::<()>().await;
            });
        })?;
    Ok(receive.recv()??)
}
