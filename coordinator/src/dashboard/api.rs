//! The services, called within the process as by a client, with the identity of whoever looks at a page.

use std::task::{Context, Poll};

use fovea_proto::MESSAGE_BYTES;
use fovea_proto::pb::cluster_client::ClusterClient;
use fovea_proto::pb::datasets_client::DatasetsClient;
use fovea_proto::pb::groups_client::GroupsClient;
use fovea_proto::pb::runs_client::RunsClient;
use http::{HeaderValue, Request, Response, header};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use super::visitor::Visitor;
use crate::access::{Access, AccessLayer, Caller};

/// The services behind the layer that checks every request.
#[derive(Debug, Clone)]
pub(super) struct Api(Access<Routes>);

/// The services as one visitor reaches them.
#[derive(Debug, Clone)]
pub(super) struct Speaking {
    services: Access<Routes>,
    caller: Caller,
    token: Option<HeaderValue>,
}

pub(super) type Runs = RunsClient<Speaking>;
pub(super) type Datasets = DatasetsClient<Speaking>;

impl Api {
    pub(super) fn new(access: AccessLayer, routes: Routes) -> Self {
        Self(access.layer(routes.prepare()))
    }

    fn by(&self, visitor: &Visitor) -> Speaking {
        let Visitor { origin, token, .. } = visitor;
        Speaking {
            services: self.0.clone(),
            caller: origin.clone(),
            token: token.clone(),
        }
    }

    pub(super) fn runs(&self, visitor: &Visitor) -> Runs {
        RunsClient::new(self.by(visitor)).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(super) fn datasets(&self, visitor: &Visitor) -> Datasets {
        DatasetsClient::new(self.by(visitor)).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(super) fn groups(&self, visitor: &Visitor) -> GroupsClient<Speaking> {
        GroupsClient::new(self.by(visitor)).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(super) fn cluster(&self, visitor: &Visitor) -> ClusterClient<Speaking> {
        ClusterClient::new(self.by(visitor)).max_decoding_message_size(MESSAGE_BYTES)
    }
}

impl Service<Request<Body>> for Speaking {
    type Response = Response<Body>;
    type Error = <Access<Routes> as Service<Request<Body>>>::Error;
    type Future = <Access<Routes> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // What the network's door would say of the connection.
        request.extensions_mut().insert(TcpConnectInfo {
            local_addr: None,
            remote_addr: self.caller.address,
        });
        request.extensions_mut().insert(self.caller.clone());
        if let Some(token) = &self.token {
            let headers = request.headers_mut();
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        self.services.call(request)
    }
}
