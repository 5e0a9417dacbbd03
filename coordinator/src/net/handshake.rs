//! Whether a client's HTTP/2 handshake has arrived: the preface and its SETTINGS frame.

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`.
const PREFACE: usize = 24;

/// The header of a frame; its first three bytes are the payload's length.
const FRAME_HEADER: usize = 9;

/// How much of a handshake has arrived. What the bytes say is hyper's to judge.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    seen: usize,
    /// Length of the first frame's payload, from the bytes of it that were seen.
    payload: usize,
}

impl Handshake {
    /// Takes the next bytes of the connection; true once the handshake is whole.
    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> bool {
        let length = PREFACE..PREFACE + 3;
        for (at, byte) in (self.seen..).zip(bytes) {
            if at >= length.end {
                break;
            }
            if length.contains(&at) {
                self.payload = self.payload << 8 | usize::from(*byte);
            }
        }
        self.seen = self.seen.saturating_add(bytes.len());
        self.seen >= PREFACE + FRAME_HEADER + self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_whole_with_the_last_byte_of_the_settings_however_it_is_cut() {
        for payload in [0usize, 6, 300] {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            bytes.extend([0, (payload >> 8) as u8, payload as u8, 4, 0, 0, 0, 0, 0]);
            bytes.resize(bytes.len() + payload, 7);
            for piece in [1, 2, 25, 26, 1000] {
                let mut handshake = Handshake::default();
                let mut whole_after = 0;
                for part in bytes.chunks(piece) {
                    whole_after += part.len();
                    if handshake.on_bytes(part) {
                        break;
                    }
                }
                assert_eq!(whole_after, bytes.len(), "{payload}, {piece}");
                assert!(handshake.on_bytes(&[]));
            }
        }
    }
}
