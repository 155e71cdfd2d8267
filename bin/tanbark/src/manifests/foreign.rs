//! YAML that is not objects of Kubernetes, though it often lies beside some: charts,
//! kustomizations, Compose files, IstioOperators.
//!
//! Each is named for what it is, with the command that makes objects of it; what it stands beside
//! is read all the same.

use std::path::{Path, PathBuf};

use machine::source::IMAGES;
use wire_kube::manifest::Document;

use crate::object;

/// Takes out what is no file of objects; what it is, a line each.
pub fn take_out(files: &mut Vec<PathBuf>) -> Vec<String> {
    let mut told = Vec::new();
    let charts: Vec<PathBuf> = files.iter().filter_map(|file| chart_of(file)).collect();
    // A chart may hold others.
    let within = |path: &Path| {
        let path = path.parent();
        path.is_some_and(|path| charts.iter().any(|chart| path.starts_with(chart)))
    };
    for chart in charts.iter().filter(|chart| !within(chart)) {
        let folder = chart.display();
        told.push(format!(
            "{folder}: a Helm chart; its files are templates, not objects: run `helm template {folder} | tanbark apply -f -`, or write its output to a file"
        ));
    }
    files.retain(|file| !within(file));
    files.retain(|file| {
        let kustomization = ["kustomization.yaml", "kustomization.yml"];
        let found = kustomization.iter().any(|name| file.ends_with(name));
        if found {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new(".")).display();
            told.push(format!(
                "{}: a kustomization, which is not built in: run `kubectl kustomize {folder} | tanbark apply -f -`",
                file.display()
            ));
        }
        !found
    });
    told
}

/// The folder of a chart, of its Chart.yaml.
fn chart_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent().filter(|_| file.ends_with("Chart.yaml"))?;
    folder.join("templates").is_dir().then(|| folder.to_owned())
}

/// Is this the image map of the folder that was named? It holds no objects, as `tanbark up` has it.
pub fn is_image_map(folder: &Path, file: &Path, documents: &[Document]) -> bool {
    file == folder.join(IMAGES)
        && documents.iter().all(|document| {
            document.object.get("kind").is_none() && document.object.get("images").is_some()
        })
}

/// What a document is that is no object here, with its place and where its parts go.
pub fn explain(document: &Document) -> Option<String> {
    let kind = object::text(&document.object, "/kind");
    let version = object::text(&document.object, "/apiVersion");
    if kind == "IstioOperator" && version.starts_with("install.istio.io/") {
        return Some(format!(
            "{}: an IstioOperator, which installs Istio; nothing is installed here. Its parts: spec.meshConfig goes to the key `mesh` of ConfigMap istio in \
             istio-system; each gateway of spec.components becomes a Deployment with the annotation inject.istio.io/templates: gateway and a Service; \
             spec.values.global.proxy becomes annotations of pods",
            document.place("kind")
        ));
    }
    let services = document.object.get("services");
    if kind.is_empty() && version.is_empty() && services.is_some_and(serde_json::Value::is_object) {
        let file = &document.source.file;
        return Some(format!(
            "{}: a Compose file, not objects of Kubernetes: each of its services becomes a Deployment and a Service, its environment and volumes go to the container; \
             `kompose convert --stdout -f {file} | tanbark apply -f -` makes a beginning",
            document.place("services")
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{Depth, read};

    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";

    #[test]
    fn what_is_no_object_is_named_and_hides_no_object() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(file, text).expect("written");
        };
        write("a.yaml", NAMESPACE);
        write("images.yaml", "images: []\n");
        write("shop/Chart.yaml", "apiVersion: v2\nname: shop\n");
        write("shop/values.yaml", "a: 1\n");
        write("shop/templates/a.yaml", "kind: {{ .Values.kind }}\n");
        write("shop/charts/x/Chart.yaml", "name: x\n");
        write("shop/charts/x/templates/a.yaml", "{{ a }}\n");
        write("k/kustomization.yaml", "resources: [a.yaml]\n");
        write("docker-compose.yml", "services: {web: {image: nginx}}\n");
        write(
            "operator.yaml",
            "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {meshConfig: {}}\n",
        );
        let all = read(&[folder.path().into()], Depth::Below).expect("read");
        assert_eq!(all.documents.len(), 1, "{:?}", all.documents);
        assert_eq!(all.broken.len(), 4, "{:#?}", all.broken);
        for words in [
            "shop | tanbark apply -f -",
            "k | tanbark apply -f -",
            "a Compose file",
            "ConfigMap istio in istio-system",
        ] {
            let count = all
                .broken
                .iter()
                .filter(|line| line.contains(words))
                .count();
            assert_eq!(count, 1, "{words}: {:#?}", all.broken);
        }
    }

    #[test]
    fn objects_in_a_file_of_the_image_maps_name_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("images.yaml"), NAMESPACE).expect("written");
        let all = read(&[folder.path().into()], Depth::Below).expect("read");
        assert_eq!(all.documents.len(), 1);
    }
}
