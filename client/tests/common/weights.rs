//! The scripted coordinator's weights.

use fovea_proto::pb;
use fovea_proto::pb::weights_server::Weights;
use tonic::{Request, Response, Status, Streaming};

use super::{Fake, Out, Reply};

#[tonic::async_trait]
impl Weights for Fake {
    async fn create(
        &self,
        request: Request<Streaming<pb::CreateWeightsRequest>>,
    ) -> Reply<pb::CreateWeightsResponse> {
        use pb::create_weights_request::Part;
        use pb::create_weights_response::Outcome;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Status::invalid_argument("header: comes first"));
        };
        let mut sent = 0;
        while let Some(message) = parts.message().await? {
            let Some(Part::Data(data)) = message.part else {
                return Err(Status::invalid_argument("header: comes once"));
            };
            assert!(data.len() <= fovea_proto::CHUNK_BYTES);
            sent += data.len();
        }
        let mut state = self.0.lock().unwrap();
        let name = match &*header.name {
            "" => "stored".to_owned(),
            name => name.to_owned(),
        };
        let layer = |name: &str, shape: &[u32]| pb::WeightsLayer {
            name: name.into(),
            shape: shape.to_vec(),
        };
        let ignored = |name: &str, reason: &str| pb::IgnoredLayer {
            name: name.into(),
            reason: reason.into(),
        };
        let stored = pb::StoredWeights {
            name,
            sha256: header.sha256.clone(),
            size_bytes: header.size_bytes,
            added_at_ms: 1,
            format: "safetensors".into(),
            layers: vec![
                layer("conv1", &[64, 3, 7, 7]),
                layer("conv2", &[8, 64, 1, 1]),
            ],
            ignored: (1..=6)
                .map(|i| ignored(&format!("loss1/{i}"), "auxiliary"))
                .chain([ignored("loss3/classifier", "replaced")])
                .collect(),
            ..pb::StoredWeights::default()
        };
        let had = state.weights.iter().any(|w| w.sha256 == stored.sha256);
        state.weights.retain(|w| w.sha256 != stored.sha256);
        state.weights.push(stored.clone());
        state.sent_weights.push((header, sent));
        let outcome = if had {
            Outcome::Repaired
        } else {
            Outcome::Added
        };
        Ok(Response::new(pb::CreateWeightsResponse {
            weights: Some(stored),
            outcome: outcome.into(),
        }))
    }

    async fn list(&self, _: Request<pb::ListWeightsRequest>) -> Reply<pb::ListWeightsResponse> {
        let weights = self.0.lock().unwrap().weights.clone();
        Ok(Response::new(pb::ListWeightsResponse { weights }))
    }

    type FetchStream = Out<pb::WeightsChunk>;

    async fn fetch(&self, _: Request<pb::FetchWeightsRequest>) -> Reply<Self::FetchStream> {
        Err(Status::unimplemented("clients do not call it"))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteWeightsRequest>,
    ) -> Reply<pb::DeleteWeightsResponse> {
        Fake::delete(self, &request.into_inner().weights, "")?;
        Ok(Response::new(pb::DeleteWeightsResponse {
            freed_bytes: 53_000_000,
        }))
    }
}
