use std::time::Duration;

use super::*;
use crate::session::tests::control_plane::ControlPlane;

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn names_tell_of_files() {
    assert_eq!(
        FileSecret::parse("file-root:system"),
        Some(FileSecret::SystemRoots)
    );
    assert_eq!(
        FileSecret::parse("file-root:/etc/ca.pem"),
        Some(FileSecret::Roots("/etc/ca.pem".into()))
    );
    assert_eq!(
        FileSecret::parse("file-cert:/a/cert.pem~/a/key.pem"),
        Some(FileSecret::Certificate {
            chain: "/a/cert.pem".into(),
            key: "/a/key.pem".into()
        })
    );
    for other in ["file-cert:/a", "default", "kubernetes://x"] {
        assert_eq!(FileSecret::parse(other), None, "{other}");
    }
}

async fn next(answers: &mut mpsc::Receiver<Answer>) -> Result<Arc<Secret>, String> {
    let answer = tokio::time::timeout(DEADLINE, answers.recv());
    answer.await.expect("in time").expect("an answer").secret
}

#[tokio::test]
async fn a_missing_file_is_named_and_what_comes_later_is_taken() {
    let control = ControlPlane::start(0).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let name = format!("file-root:{}", path.display());
    let (sender, mut answers) = mpsc::channel(4);
    let mut secrets = FileSecrets::new(sender);
    secrets.follow(&BTreeSet::from([name.clone()]));
    let why = next(&mut answers).await.unwrap_err();
    assert!(why.starts_with(&path.display().to_string()), "{why}");
    fs::write(&path, control.root_pem()).unwrap();
    let secret = next(&mut answers).await.unwrap();
    assert_eq!(secret.name.as_str(), name);
    // A replaced file is read again, and one that is no PEM is named.
    fs::write(&path, "nothing").unwrap();
    let why = next(&mut answers).await.unwrap_err();
    assert!(why.contains("ca.pem"), "{why}");
    secrets.follow(&BTreeSet::new());
    assert!(secrets.running.is_empty());
}
