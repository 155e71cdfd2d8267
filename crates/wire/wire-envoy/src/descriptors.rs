//! Messages as proto3 JSON and YAML, by reflection over the descriptors of every message we know.
//!
//! Used where people read or write configuration: config_dump, bootstrap files, EnvoyFilter patches, tests.
//! [`Descriptors::load`] decodes 0.6 MB into about 18 MB of tables in some 30 ms, so load late, use, and drop.
//! `Any` is written out by its `@type`; one whose type is unknown is an error, never a silent blob.

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde::de::DeserializeSeed;
use serde_json::Value as Json;

use crate::pb::Any;
use crate::structs;
use crate::type_url::{PREFIX, message_name};

static ENCODED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// How field names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// `connectTimeout`: canonical proto3 JSON.
    Camel,
    /// `connect_timeout`: what Envoy's config_dump and its documentation use.
    Snake,
}

/// What happens to a field that the message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is an error that names the field.
    Deny,
    /// It is skipped.
    Skip,
}

/// Why a text and a message do not fit.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// No message of this name is known.
    #[error("unknown message type {0}")]
    UnknownType(String),
    /// The text does not fit the message; says where as far as the format knows it.
    #[error("{0}")]
    Text(String),
    /// The bytes do not fit the message.
    #[error("{0} holds bytes that do not decode: {1}")]
    Bytes(String, prost::DecodeError),
    /// The tables built into the program do not load.
    #[error("built-in descriptors: {0}")]
    Builtin(String),
}

/// The loaded tables. Dropping the last clone frees the memory.
#[derive(Clone)]
pub struct Descriptors {
    pool: DescriptorPool,
}

impl Descriptors {
    /// Decodes the built-in tables.
    pub fn load() -> Result<Self, JsonError> {
        DescriptorPool::decode(ENCODED)
            .map(|pool| Self { pool })
            .map_err(|e| JsonError::Builtin(e.to_string()))
    }

    /// The tables themselves, for work on dynamic messages (patches).
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The descriptor of a message named as `envoy.config.cluster.v3.Cluster` or by type URL.
    pub fn message(&self, name_or_url: &str) -> Result<MessageDescriptor, JsonError> {
        let name = message_name(name_or_url);
        self.pool
            .get_message_by_name(name)
            .ok_or_else(|| JsonError::UnknownType(name.to_owned()))
    }

    /// A message as JSON. Fields at their default are left out.
    pub fn to_json<M: Message + Name>(&self, message: &M, names: Names) -> Result<Json, JsonError> {
        self.bytes_to_json(&M::full_name(), &message.encode_to_vec(), names)
    }

    /// An `Any` as JSON: an object with `@type` first among equals.
    pub fn any_to_json(&self, any: &Any, names: Names) -> Result<Json, JsonError> {
        let mut json = self.bytes_to_json(message_name(&any.type_url), &any.value, names)?;
        if let Json::Object(fields) = &mut json {
            fields.insert("@type".to_owned(), any.type_url.clone().into());
        }
        Ok(json)
    }

    fn bytes_to_json(&self, name: &str, bytes: &[u8], names: Names) -> Result<Json, JsonError> {
        let message = DynamicMessage::decode(self.message(name)?, bytes)
            .map_err(|e| JsonError::Bytes(name.to_owned(), e))?;
        dynamic_to_json(&message, names)
    }

    /// A message from JSON; both spellings of field names are read.
    pub fn from_json<M: Message + Name + Default>(
        &self,
        json: Json,
        unknown: Unknown,
    ) -> Result<M, JsonError> {
        let dynamic = self.dynamic_from_json(&M::full_name(), json, unknown)?;
        typed(&dynamic)
    }

    /// The bytes of a message that is named at run time, from JSON.
    pub fn bytes_from_json(
        &self,
        name_or_url: &str,
        json: Json,
        unknown: Unknown,
    ) -> Result<Vec<u8>, JsonError> {
        self.dynamic_from_json(name_or_url, json, unknown)
            .map(|dynamic| dynamic.encode_to_vec())
    }

    /// An `Any` from JSON that names its type in `@type`.
    pub fn any_from_json(&self, mut json: Json, unknown: Unknown) -> Result<Any, JsonError> {
        let type_url = match &mut json {
            Json::Object(fields) => fields.remove("@type"),
            _ => None,
        };
        let Some(Json::String(type_url)) = type_url else {
            return Err(JsonError::Text("no @type in an Any".to_owned()));
        };
        let value = self.bytes_from_json(&type_url, json, unknown)?;
        Ok(Any {
            type_url: format!("{PREFIX}{}", message_name(&type_url)),
            value,
        })
    }

    fn dynamic_from_json(
        &self,
        name: &str,
        json: Json,
        unknown: Unknown,
    ) -> Result<DynamicMessage, JsonError> {
        let options = DeserializeOptions::new().deny_unknown_fields(unknown == Unknown::Deny);
        DynamicMessage::deserialize_with_options(self.message(name)?, json, &options)
            .map_err(|e| JsonError::Text(e.to_string()))
    }

    /// A message from YAML (or JSON, which is YAML too); errors name line and column, inside an `Any` as well.
    pub fn from_yaml<M: Message + Name + Default>(&self, yaml: &str) -> Result<M, JsonError> {
        let descriptor = self.message(&M::full_name())?;
        let dynamic: DynamicMessage =
            serde_saphyr::with_deserializer_from_str(yaml, |de| descriptor.deserialize(de))
                .map_err(|e| JsonError::Text(e.to_string()))?;
        typed(&dynamic)
    }
}

/// A dynamic message as JSON, whole numbers as integers.
pub fn dynamic_to_json(message: &DynamicMessage, names: Names) -> Result<Json, JsonError> {
    let options = SerializeOptions::new()
        .use_proto_field_name(names == Names::Snake)
        .skip_default_fields(true)
        .stringify_64_bit_integers(true);
    let mut json = message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|e| JsonError::Text(e.to_string()))?;
    mend_numbers(&mut json);
    Ok(json)
}

/// prost-reflect writes every double as `2.0`; Envoy and Go write `2`.
fn mend_numbers(json: &mut Json) {
    match json {
        Json::Number(n) if n.is_f64() => {
            if let Some(value) = n.as_f64() {
                *json = structs::number(value);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(mend_numbers),
        Json::Object(fields) => fields.values_mut().for_each(mend_numbers),
        _ => {}
    }
}

fn typed<M: Message + Name + Default>(dynamic: &DynamicMessage) -> Result<M, JsonError> {
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|e| JsonError::Bytes(M::full_name(), e))
}

#[cfg(test)]
mod tests;
