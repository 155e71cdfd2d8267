//! `Any`-typed configuration: what it says it is, and the message inside. A `TypedStruct` counts as
//! the type that it names.

use prost::{Message, Name};
use wire_envoy::{
    pb::{self, Any, Struct},
    type_url::message_name,
    unpack,
};

use crate::{context::Cx, reject::Refusal};

/// One extension's configuration, its type known and its content still closed.
#[derive(Debug, Clone)]
pub(crate) struct Extension {
    /// Full message name.
    pub(crate) name: String,
    payload: Payload,
}

#[derive(Debug, Clone)]
enum Payload {
    Bytes(Vec<u8>),
    Struct(Struct),
}

impl Extension {
    pub(crate) fn open(any: &Any) -> Result<Self, Refusal> {
        let bad = |e: wire_envoy::any::UnpackError| Refusal::new(e.to_string());
        let (type_url, value) = match message_name(&any.type_url) {
            "udpa.type.v1.TypedStruct" => {
                let pb::typed_struct::Udpa { type_url, value } = unpack(any).map_err(bad)?;
                (type_url, value)
            }
            "xds.type.v3.TypedStruct" => {
                let pb::typed_struct::Xds { type_url, value } = unpack(any).map_err(bad)?;
                (type_url, value)
            }
            "" => return Err(Refusal::new("names no type")),
            name => {
                return Ok(Self {
                    name: name.to_owned(),
                    payload: Payload::Bytes(any.value.clone()),
                });
            }
        };
        let name = message_name(&type_url).to_owned();
        Ok(Self {
            name,
            payload: Payload::Struct(value.unwrap_or_default()),
        })
    }

    pub(crate) fn open_required(any: Option<Any>) -> Result<Self, Refusal> {
        any.as_ref()
            .ok_or_else(|| Refusal::new("is required"))
            .and_then(Self::open)
    }

    pub(crate) fn is<M: Name>(&self) -> bool {
        self.name == M::full_name()
    }

    /// The message, which must be of this type.
    pub(crate) fn message<M: Message + Name + Default>(&self, cx: &mut Cx) -> Result<M, Refusal> {
        if !self.is::<M>() {
            return Err(self.unknown(&format!("where {} is wanted", M::full_name())));
        }
        match &self.payload {
            Payload::Bytes(bytes) => M::decode(bytes.as_slice())
                .map_err(|e| Refusal::new(format!("is no valid {}: {e}", self.name))),
            Payload::Struct(value) => cx.message_of(value),
        }
    }

    /// The Struct, when it was written as one. Istio's own filters are read from it directly, as
    /// that needs no descriptors.
    pub(crate) fn structure(&self) -> Option<&Struct> {
        match &self.payload {
            Payload::Struct(value) => Some(value),
            Payload::Bytes(_) => None,
        }
    }

    pub(crate) fn unknown(&self, place: &str) -> Refusal {
        Refusal::new(format!("{} is not supported {place}", self.name))
    }
}

/// The extension of a `TypedExtensionConfig`.
pub(crate) fn typed(
    config: pb::core::TypedExtensionConfig,
) -> Result<(String, Extension), Refusal> {
    let pb::core::TypedExtensionConfig { name, typed_config } = config;
    Ok((
        name,
        Extension::open_required(typed_config).map_err(|r| r.under("typed_config"))?,
    ))
}
