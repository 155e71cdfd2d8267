//! Packs messages so that equal messages have equal bytes.
//!
//! prost keeps protobuf maps in `HashMap`s, whose order changes from value to value. Resources are compared, cached and pushed by their
//! bytes, so map entries are put in the order of their keys. Where the maps are is a small table of message and field numbers; a test
//! compares it with the descriptors. (Messages of Istio are compiled with ordered maps.) What is inside an `Any` was packed by [`packed`] before.

use prost::{Message, Name};
use wire_envoy::pb::Any;

#[cfg(test)]
mod tests;

/// Packs a message into an `Any`; the same message always gives the same bytes.
pub fn packed<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: wire_envoy::type_url::<M>(),
        value: ordered(&M::full_name(), message.encode_to_vec()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A map whose values hold no maps.
    Map,
    /// A map to messages that hold maps.
    MapTo(&'static str),
    /// A message (or several) that holds maps.
    Message(&'static str),
}

type Field = (u64, Holds);

const METADATA: &str = "envoy.config.core.v3.Metadata";
const STRUCT: &str = "google.protobuf.Struct";
const CHAIN: &str = "envoy.config.listener.v3.FilterChain";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const RULES: &str = "envoy.config.rbac.v3.RBAC";

/// Fields of a message that are maps, or hold messages with maps, as far as the generators fill them.
fn fields(message: &str) -> &'static [Field] {
    use Holds::{Map, MapTo, Message};
    match message {
        "envoy.config.cluster.v3.Cluster" => &[
            (25, Message(METADATA)),
            (
                33,
                Message("envoy.config.endpoint.v3.ClusterLoadAssignment"),
            ),
            (36, Map),
            (
                43,
                Message("envoy.config.cluster.v3.Cluster.TransportSocketMatch"),
            ),
        ],
        "envoy.config.cluster.v3.Cluster.TransportSocketMatch" => &[(2, Message(STRUCT))],
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => {
            &[(2, Message("envoy.config.endpoint.v3.LocalityLbEndpoints"))]
        }
        "envoy.config.endpoint.v3.LocalityLbEndpoints" => {
            &[(2, Message("envoy.config.endpoint.v3.LbEndpoint"))]
        }
        "envoy.config.endpoint.v3.LbEndpoint" => &[(3, Message(METADATA))],
        METADATA => &[(1, MapTo(STRUCT)), (2, Map)],
        STRUCT => &[(1, MapTo("google.protobuf.Value"))],
        "google.protobuf.Value" => &[
            (5, Message(STRUCT)),
            (6, Message("google.protobuf.ListValue")),
        ],
        "google.protobuf.ListValue" => &[(1, Message("google.protobuf.Value"))],
        "envoy.config.listener.v3.Listener" => &[
            (3, Message(CHAIN)),
            (6, Message(METADATA)),
            (25, Message(CHAIN)),
        ],
        CHAIN => &[(5, Message(METADATA))],
        ROUTES => &[(2, Message("envoy.config.route.v3.VirtualHost")), (16, Map)],
        "envoy.config.route.v3.VirtualHost" => {
            &[(3, Message("envoy.config.route.v3.Route")), (15, Map)]
        }
        "envoy.config.route.v3.Route" => &[
            (2, Message("envoy.config.route.v3.RouteAction")),
            (4, Message(METADATA)),
            (13, Map),
        ],
        "envoy.config.route.v3.RouteAction" => {
            &[(3, Message("envoy.config.route.v3.WeightedCluster"))]
        }
        "envoy.config.route.v3.WeightedCluster" => &[(
            1,
            Message("envoy.config.route.v3.WeightedCluster.ClusterWeight"),
        )],
        "envoy.config.route.v3.WeightedCluster.ClusterWeight" => &[(10, Map)],
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            &[(4, Message(ROUTES))]
        }
        "envoy.extensions.filters.http.rbac.v3.RBAC"
        | "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            &[(1, Message(RULES)), (2, Message(RULES))]
        }
        RULES => &[(2, Map)],
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            &[(5, Message("envoy.config.core.v3.SubstitutionFormatString"))]
        }
        "envoy.config.core.v3.SubstitutionFormatString" => &[(2, Message(STRUCT))],
        "udpa.type.v1.TypedStruct" => &[(2, Message(STRUCT))],
        _ => &[],
    }
}

/// One field of an encoded message: its number, wire type and content (without length).
struct Part<'a> {
    number: u64,
    /// Key, length if any, and content, as they stood.
    whole: &'a [u8],
    /// Content of a length-delimited field.
    content: Option<&'a [u8]>,
}

fn ordered(message: &str, bytes: Vec<u8>) -> Vec<u8> {
    let known = fields(message);
    if known.is_empty() {
        return bytes;
    }
    let Some(parts) = parts(&bytes) else {
        return bytes;
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(part) = parts.get(at) {
        let holds = known
            .iter()
            .find(|(number, _)| *number == part.number)
            .map(|(_, holds)| *holds);
        match (holds, part.content) {
            (Some(Holds::Message(inner)), Some(content)) => {
                put(&mut out, part.number, &ordered(inner, content.to_vec()))
            }
            (Some(holds), Some(_)) => {
                let entries = parts
                    .get(at..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(|other| other.number == part.number);
                let mut entries: Vec<Vec<u8>> = entries
                    .filter_map(|entry| Some(entry_ordered(holds, entry.content?)))
                    .collect();
                at += entries.len().max(1) - 1;
                entries.sort_unstable();
                entries
                    .iter()
                    .for_each(|entry| put(&mut out, part.number, entry));
            }
            _ => out.extend_from_slice(part.whole),
        }
        at += 1;
    }
    out
}

/// One map entry (1 = key, 2 = value). Entries begin with the length of the key; that order is as good as any.
fn entry_ordered(holds: Holds, content: &[u8]) -> Vec<u8> {
    let (Holds::MapTo(value), Some(parts)) = (holds, parts(content)) else {
        return content.to_vec();
    };
    let mut out = Vec::with_capacity(content.len());
    for part in parts {
        match part.content {
            Some(content) if part.number == 2 => {
                put(&mut out, 2, &ordered(value, content.to_vec()))
            }
            _ => out.extend_from_slice(part.whole),
        }
    }
    out
}

fn put(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    prost::encoding::encode_varint(number << 3 | 2, out);
    prost::encoding::encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// Splits an encoded message. `None`: not one (cannot be for what prost wrote).
fn parts(bytes: &[u8]) -> Option<Vec<Part<'_>>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = rest;
        let key = prost::encoding::decode_varint(&mut rest).ok()?;
        let mut content = None;
        match key & 7 {
            0 => drop(prost::encoding::decode_varint(&mut rest).ok()?),
            1 => rest = rest.get(8..)?,
            5 => rest = rest.get(4..)?,
            2 => {
                let length =
                    usize::try_from(prost::encoding::decode_varint(&mut rest).ok()?).ok()?;
                content = Some(rest.get(..length)?);
                rest = rest.get(length..)?;
            }
            _ => return None,
        }
        let whole = start.get(..start.len() - rest.len())?;
        found.push(Part {
            number: key >> 3,
            whole,
            content,
        });
    }
    Some(found)
}
