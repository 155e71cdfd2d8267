//! A container's file system: the machine's own, with private changes and the pod's files in their
//! places.
//!
//! The new root is a memory file system. Each folder of the machine's root is shown through an
//! overlay whose changes go into memory; a folder with mounts beneath it is split, because the
//! kernel shows no mounts through an overlay and, without root, refuses one over them. Special file
//! systems and what no overlay can show are bound as they are. So a mount point can be made
//! anywhere, a container may write where its user may, and nothing stays on the machine.
//!
//! `/run` and the folders of the specification's `hidden` are empty, `/proc` is the container's own. (A hidden folder must be one
//! with a mount beneath it, so that splitting reaches it: the runtime's state folder is.)

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::spec::{Mount, StartSpec};
use crate::error::{Context, Result};

/// Most memory that a container's changes may take.
const MAX_CHANGES: &str = "size=1g,mode=755";
const OLD_ROOT: &str = "/.machine";
/// File systems that are bound as they are.
const SPECIAL: [&str; 14] = [
    "sysfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "mqueue",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "hugetlbfs",
    "configfs",
    "proc",
];

/// Replaces this process's root; it must be alone in its mount namespace.
pub fn build(spec: &StartSpec) -> Result<()> {
    bind_flags(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let table = MountTable::read()?;
    mount(
        Some("tmpfs"),
        &spec.scratch,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(MAX_CHANGES),
    )
    .context(|| "mount the container's memory file system".into())?;
    let mut builder = Builder {
        table,
        new: spec.scratch.join("root"),
        changes: spec.scratch.join("changes"),
        overlays: 0,
        unprivileged: spec.unprivileged,
        hidden: spec.hidden.clone(),
        mounts: spec.mounts.clone(),
    };
    make_folder(&builder.new)?;
    make_folder(&builder.changes)?;
    builder.split(Path::new("/"))?;
    let (new, old) = (builder.new, Path::new(OLD_ROOT));
    bind_flags(Some(&new), &new, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    let old_inside = new.join(".machine");
    make_folder(&old_inside)?;
    nix::unistd::pivot_root(&new, &old_inside).context(|| "change the root".into())?;
    std::env::set_current_dir("/").context(|| "enter the new root".into())?;
    mount_proc(old);
    for wanted in &spec.mounts {
        show(wanted, old)?;
    }
    umount2(old, MntFlags::MNT_DETACH).context(|| "leave the machine's root".into())?;
    let _ = fs::remove_dir(old);
    Ok(())
}

struct Builder {
    table: MountTable,
    new: PathBuf,
    changes: PathBuf,
    overlays: u32,
    unprivileged: bool,
    hidden: Vec<PathBuf>,
    mounts: Vec<Mount>,
}

impl Builder {
    /// Shows each entry of a folder on its own.
    fn split(&mut self, folder: &Path) -> Result<()> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            self.expose(&entry.path())?;
        }
        Ok(())
    }

    fn expose(&mut self, path: &Path) -> Result<()> {
        let target = self.inside(path);
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return Ok(());
        };
        if metadata.is_symlink() {
            let Ok(link) = fs::read_link(path) else {
                return Ok(());
            };
            return symlink(link, &target).context(|| format!("copy the link {}", path.display()));
        }
        if !metadata.is_dir() {
            make_file(&target)?;
            return self.bind(path, &target);
        }
        make_folder(&target)?;
        let _ = fs::set_permissions(
            &target,
            fs::Permissions::from_mode(metadata.mode() & 0o7777),
        );
        if path == Path::new("/run")
            || path == Path::new("/proc")
            || self.hidden.iter().any(|hidden| hidden == path)
        {
            return Ok(());
        }
        if self.table.special(path) {
            return self.bind(path, &target);
        }
        if self.table.has_mounts_beneath(path) && fs::read_dir(path).is_ok() {
            return self.split(path);
        }
        if self.overlay(path, &target, &metadata) {
            Ok(())
        } else {
            self.bind(path, &target)
        }
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.new.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether an overlay could be made.
    fn overlay(&mut self, path: &Path, target: &Path, metadata: &fs::Metadata) -> bool {
        let text = path.to_string_lossy();
        if text.contains([':', ',', '\\']) {
            return false;
        }
        self.overlays += 1;
        let upper = self.changes.join(format!("{}u", self.overlays));
        let work = self.changes.join(format!("{}w", self.overlays));
        if make_folder(&upper).is_err() || make_folder(&work).is_err() {
            return false;
        }
        let _ = chown(&upper, Some(metadata.uid()), Some(metadata.gid()));
        let _ = fs::set_permissions(&upper, fs::Permissions::from_mode(metadata.mode() & 0o7777));
        if self.prepare_mount_points(path, &upper).is_err() {
            return false;
        }
        let user = if self.unprivileged { ",userxattr" } else { "" };
        let options = format!(
            "lowerdir={text},upperdir={},workdir={}{user}",
            upper.display(),
            work.display()
        );
        mount(
            Some("overlay"),
            target,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .is_ok()
    }

    /// Makes the mount points beneath `path` in an overlay's upper folder. Through the finished
    /// overlay that would need a right over the machine's folders, which are not ours when we are
    /// not root. Folders that exist keep their mode; a link ends the way.
    fn prepare_mount_points(&self, path: &Path, upper: &Path) -> Result<()> {
        for wanted in &self.mounts {
            let Ok(beneath) = wanted.target.strip_prefix(path) else {
                continue;
            };
            let folder = fs::metadata(&wanted.source).is_ok_and(|metadata| metadata.is_dir());
            let (mut lower, mut made) = (path.to_path_buf(), upper.to_path_buf());
            let parts: Vec<_> = beneath.components().collect();
            for (at, part) in parts.iter().enumerate() {
                lower.push(part);
                made.push(part);
                let existing = fs::symlink_metadata(&lower).ok();
                let is_last = at + 1 == parts.len();
                if existing.as_ref().is_some_and(|metadata| !metadata.is_dir()) {
                    break;
                }
                if is_last && !folder {
                    if !made.exists() {
                        make_file(&made)?;
                    }
                    break;
                }
                if !made.exists() {
                    make_folder(&made)?;
                    if let Some(metadata) = existing {
                        let _ = chown(&made, Some(metadata.uid()), Some(metadata.gid()));
                        let _ = fs::set_permissions(
                            &made,
                            fs::Permissions::from_mode(metadata.mode() & 0o7777),
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// What cannot even be bound is left out; the container then finds an empty place there.
    fn bind(&self, path: &Path, target: &Path) -> Result<()> {
        if let Err(error) = bind_flags(Some(path), target, MsFlags::MS_BIND | MsFlags::MS_REC) {
            tracing::debug!(%error, path = %path.display(), "not shown in the container");
        }
        Ok(())
    }
}

/// The container's own view of processes; where the kernel refuses a new one, the machine's is
/// shown.
fn mount_proc(old: &Path) {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>).is_err()
        && let Err(error) = bind_flags(
            Some(&old.join("proc")),
            Path::new("/proc"),
            MsFlags::MS_BIND | MsFlags::MS_REC,
        )
    {
        tracing::debug!(%error, "the container has no /proc");
    }
}

fn show(wanted: &Mount, old: &Path) -> Result<()> {
    let source = old.join(wanted.source.strip_prefix("/").unwrap_or(&wanted.source));
    let folder = fs::metadata(&source)
        .context(|| format!("find {}", wanted.source.display()))?
        .is_dir();
    // A link in the way (such as /etc/resolv.conf) would lead the mount elsewhere.
    if fs::symlink_metadata(&wanted.target).is_ok_and(|metadata| metadata.is_symlink()) && !folder {
        fs::remove_file(&wanted.target)
            .context(|| format!("replace {}", wanted.target.display()))?;
    }
    if folder {
        fs::create_dir_all(&wanted.target)
            .context(|| format!("make the mount point {}", wanted.target.display()))?;
    } else {
        if let Some(parent) = wanted.target.parent() {
            fs::create_dir_all(parent)
                .context(|| format!("make the mount point {}", wanted.target.display()))?;
        }
        if !wanted.target.exists() {
            make_file(&wanted.target)?;
        }
    }
    bind_flags(
        Some(&source),
        &wanted.target,
        MsFlags::MS_BIND | MsFlags::MS_REC,
    )?;
    if wanted.read_only {
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV;
        bind_flags(None, &wanted.target, flags)?;
    }
    Ok(())
}

fn bind_flags(source: Option<&Path>, target: &Path, flags: MsFlags) -> Result<()> {
    mount(source, target, None::<&str>, flags, None::<&str>)
        .context(|| format!("mount {}", target.display()))
}

fn make_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .mode(0o755)
        .create(path)
        .context(|| format!("make the folder {}", path.display()))
}

fn make_file(path: &Path) -> Result<()> {
    fs::write(path, b"").context(|| format!("make the file {}", path.display()))
}

/// Mount points with their file system's type.
#[derive(Debug, Default)]
struct MountTable {
    mounts: Vec<(PathBuf, String)>,
}

impl MountTable {
    fn read() -> Result<Self> {
        let text =
            fs::read_to_string("/proc/self/mountinfo").context(|| "read the mount table".into())?;
        Ok(Self::parse(&text))
    }

    /// The fifth field is the mount point; the type follows the lone dash (proc(5)).
    fn parse(text: &str) -> Self {
        let mounts = text.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?;
            Some((
                PathBuf::from(unescape(point)),
                right.split(' ').next()?.to_string(),
            ))
        });
        Self {
            mounts: mounts.collect(),
        }
    }

    fn special(&self, path: &Path) -> bool {
        let here = self.mounts.iter().rev().find(|(point, _)| point == path);
        here.is_some_and(|(_, kind)| SPECIAL.contains(&kind.as_str()))
    }

    fn has_mounts_beneath(&self, path: &Path) -> bool {
        self.mounts
            .iter()
            .any(|(point, _)| point != path && point.starts_with(path))
    }
}

/// Undoes the octal escapes of spaces, tabs, line feeds and backslashes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_tells_special_folders_and_mounts_beneath() {
        let table = MountTable::parse(
            "1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n\
             2 1 0:5 / /sys rw - sysfs sysfs rw\n\
             3 2 0:6 / /sys/fs/cgroup rw - cgroup2 none rw\n\
             4 1 8:2 / /mnt/a\\040b rw - ext4 /dev/sdb rw\n",
        );
        assert!(table.special(Path::new("/sys")));
        assert!(!table.special(Path::new("/mnt")));
        assert!(table.has_mounts_beneath(Path::new("/mnt")));
        assert!(!table.has_mounts_beneath(Path::new("/mnt/a b")));
        assert!(!table.has_mounts_beneath(Path::new("/m")));
    }
}
