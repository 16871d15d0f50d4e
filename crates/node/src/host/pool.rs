//! Sandboxes made in advance, so that a start costs two milliseconds instead of forty.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tracing::warn;
use welkin_proto::ContainerOffer;
use welkin_proto::lease::Launch;
use welkin_runtime::{FailureCode, GpuDevice, Image, Limits, SandboxSpec};
use welkin_types::Reason;

use super::config::Config;
use super::sandboxes::{NOFILE_MAX, PIDS_MAX, RunningSandbox, Sandboxes, limits_of};
use crate::{Shutdown, chain};

/// Sandboxes that are made at the same time: more only share the same cores.
const MAKING_MAX: usize = 4;
/// Thousandths of a core that making a sandbox may use.
const MAKING_CPU_MILLI: u32 = 1_000;
/// Pause after a sandbox could not be made.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Sandboxes of the image `host`, ready to start.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sandboxes: Sandboxes,
    ready: Mutex<VecDeque<RunningSandbox>>,
    size: usize,
    limits: Limits,
    taken: Notify,
    making: Semaphore,
}

/// The limits of pooled sandboxes until a lease sets its own: those of the first container.
pub(crate) fn default_limits(containers: &[ContainerOffer]) -> Limits {
    let resources = containers.first().map(|container| &container.resources);
    resources.map_or_else(Limits::default, |resources| Limits {
        cpu_milli: resources.cpu_milli,
        memory_bytes: resources.memory_bytes,
        pids: PIDS_MAX,
        scratch_bytes: resources.disk_bytes,
        nofile: NOFILE_MAX,
    })
}

impl Pool {
    /// Begins to fill the pool.
    pub(crate) fn start(
        sandboxes: Sandboxes,
        size: usize,
        limits: Limits,
        shutdown: &Shutdown,
    ) -> Self {
        let pool = Self(Arc::new(Inner {
            sandboxes,
            ready: Mutex::default(),
            size,
            limits,
            taken: Notify::new(),
            making: Semaphore::new(MAKING_MAX),
        }));
        let filler = pool.clone();
        shutdown.spawn_until_asked("pool", async move { filler.fill().await });
        pool
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, VecDeque<RunningSandbox>> {
        self.0.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fill(&self) {
        loop {
            let taken = self.0.taken.notified();
            if self.ready().len() >= self.0.size {
                taken.await;
                continue;
            }
            match self.make(SandboxSpec::new(Image::HostDirs, self.0.limits)).await {
                Ok(sandbox) => self.ready().push_back(sandbox),
                Err((_, error)) => {
                    warn!(error, "a sandbox can't be made in advance");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// A sandbox for this launch: a ready one where its image allows, else a new one. Those that
    /// wait have no GPUs, and a sandbox is made with its devices, so one with GPUs is always new.
    pub(crate) async fn take(
        &self,
        config: &Config,
        launch: &Launch,
        gpus: Vec<GpuDevice>,
    ) -> Result<RunningSandbox, (Reason, String)> {
        let image = image_of(config, &launch.image).map_err(|e| (Reason::ImageUnusable, e))?;
        if image == Image::HostDirs && gpus.is_empty() {
            while let Some(sandbox) = self.pop() {
                self.0.taken.notify_one();
                // One made by a helper that has died is gone.
                if sandbox.is_of_today() {
                    return Ok(sandbox);
                }
            }
        }
        self.make(SandboxSpec { gpus, ..SandboxSpec::new(image, limits_of(launch)) }).await
    }

    fn pop(&self) -> Option<RunningSandbox> {
        self.ready().pop_front()
    }

    async fn make(&self, mut spec: SandboxSpec) -> Result<RunningSandbox, (Reason, String)> {
        let _permit = self.0.making.acquire().await;
        // Made with a whole core at least; the start sets what the lease has paid for.
        spec.limits.cpu_milli = spec.limits.cpu_milli.max(MAKING_CPU_MILLI);
        self.0.sandboxes.prepare(spec).await.map_err(|error| {
            // What the task asks for is not the host's fault.
            let is_theirs = |code| matches!(code, FailureCode::BadImage | FailureCode::Invalid);
            let is_theirs = error.failure().is_some_and(|failure| is_theirs(failure.code));
            let reason = if is_theirs { Reason::ImageUnusable } else { Reason::SandboxFailed };
            (reason, chain(&error))
        })
    }
}

/// Which image a name means. A path must lie in one of the folders that the owner allows.
fn image_of(config: &Config, name: &str) -> Result<Image, String> {
    if name.is_empty() || name == "host" {
        return Ok(Image::HostDirs);
    }
    let path = Path::new(name);
    if !path.is_absolute() {
        return Err(format!(
            "image `{name}`: this version runs `host` and absolute paths on the host's machine \
             (a rootfs folder, an OCI layout, a `docker save` tar)"
        ));
    }
    let real: PathBuf = path.canonicalize().map_err(|error| format!("image {name}: {error}"))?;
    let is_allowed = config
        .image_dirs
        .iter()
        .filter_map(|dir| dir.canonicalize().ok())
        .any(|dir| real.starts_with(dir));
    if !is_allowed {
        return Err(format!(
            "image {name}: the host's owner does not offer images from there \
             (`host.image_dirs` in the host's configuration)"
        ));
    }
    if real.is_file() {
        return Ok(Image::DockerTar(real));
    }
    if real.join("oci-layout").is_file() {
        Ok(Image::OciLayout(real))
    } else {
        Ok(Image::Rootfs(real))
    }
}
