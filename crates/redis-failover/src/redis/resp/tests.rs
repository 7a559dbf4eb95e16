use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::{resp2, resp3};

use super::*;

const SMALL: Limits = Limits {
    bulk_bytes_max: 64,
    line_bytes_max: 32,
    reply_bytes_max: 256,
    reply_elements_max: 16,
    depth_max: 3,
};

impl Frame {
    /// Writes the frame as it goes over the wire. What RESP2 can say is said in RESP2, which every client
    /// understands: nothing is `$-1`, and an error is a line. Line ends within a line become spaces.
    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Simple(text) => put_line(out, b'+', text),
            Self::Error(text) => put_line(out, b'-', text),
            Self::Integer(number) => put_number(out, b':', number),
            Self::Bulk(text) => put_blob(out, b'$', &[text]),
            Self::Verbatim { format, text } => put_blob(out, b'=', &[format, b":", text]),
            Self::Null => out.extend_from_slice(b"$-1\r\n"),
            Self::Boolean(truth) => put_line(out, b'#', if *truth { b"t" } else { b"f" }),
            Self::Double(number) => put_number(out, b',', number),
            Self::BigNumber(digits) => put_line(out, b'(', digits),
            Self::Array(items) => put_items(out, b'*', items),
            Self::Set(items) => put_items(out, b'~', items),
            Self::Push(items) => put_items(out, b'>', items),
            Self::Map(pairs) => {
                put_number(out, b'%', pairs.len());
                for (key, value) in pairs {
                    key.encode(out);
                    value.encode(out);
                }
            }
        }
    }
}

fn put_items(out: &mut BytesMut, kind: u8, items: &[Frame]) {
    put_number(out, kind, items.len());
    for item in items {
        item.encode(out);
    }
}

fn put_line(out: &mut BytesMut, kind: u8, text: &[u8]) {
    out.extend_from_slice(&[kind]);
    out.extend(text.iter().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        other => *other,
    }));
    out.extend_from_slice(b"\r\n");
}

fn bulk(text: &str) -> Frame {
    Frame::Bulk(Bytes::copy_from_slice(text.as_bytes()))
}

fn simple(text: &str) -> Frame {
    Frame::Simple(Bytes::copy_from_slice(text.as_bytes()))
}

/// Everything that comes out of `text`, and what is left of it.
fn decode_all(text: &[u8], limits: &Limits) -> Result<(Vec<Frame>, usize), ProtocolError> {
    decode_chunks([text], limits)
}

fn decode_chunks<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Result<(Vec<Frame>, usize), ProtocolError> {
    let (mut decoder, mut buffer, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        while let Some(frame) = decoder.decode(&mut buffer, limits)? {
            frames.push(frame);
        }
    }
    Ok((frames, buffer.len()))
}

fn one(text: &[u8]) -> Frame {
    let (mut frames, rest) = decode_all(text, &Limits::DEFAULT).expect("a reply");
    assert_eq!((frames.len(), rest), (1, 0), "{}", text.escape_ascii());
    frames.remove(0)
}

fn refused(text: &[u8], limits: &Limits) -> ProtocolError {
    decode_all(text, limits).expect_err("no reply")
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out
}

#[test]
fn reads_every_type() {
    assert_eq!(one(b"+PONG\r\n"), simple("PONG"));
    assert_eq!(one(b"+\r\n"), simple(""));
    assert_eq!(one(b"-ERR no\r\n"), Frame::Error("ERR no".into()));
    assert_eq!(one(b"!6\r\nERR no\r\n"), Frame::Error("ERR no".into()));
    assert_eq!(one(b":-7\r\n"), Frame::Integer(-7));
    assert_eq!(one(b"$5\r\na\r\nbc\r\n"), bulk("a\r\nbc"));
    assert_eq!(one(b"$0\r\n\r\n"), bulk(""));
    for null in [&b"$-1\r\n"[..], b"*-1\r\n", b"_\r\n"] {
        assert_eq!(one(null), Frame::Null);
    }
    assert_eq!(one(b"#t\r\n"), Frame::Boolean(true));
    assert_eq!(one(b",1.5\r\n"), Frame::Double(1.5));
    assert_eq!(one(b",-inf\r\n"), Frame::Double(f64::NEG_INFINITY));
    let digits = "-123456789012345678901234567890";
    assert_eq!(one(format!("({digits}\r\n").as_bytes()), Frame::BigNumber(digits.into()));
    assert_eq!(one(b"*0\r\n"), Frame::Array(vec![]));
    assert_eq!(
        one(b"~2\r\n+a\r\n*1\r\n:1\r\n"),
        Frame::Set(vec![simple("a"), Frame::Array(vec![Frame::Integer(1)])])
    );
    assert_eq!(
        one(b">2\r\n$7\r\nmessage\r\n_\r\n"),
        Frame::Push(vec![bulk("message"), Frame::Null])
    );
    assert_eq!(
        one(b"%2\r\n+a\r\n:1\r\n+b\r\n%0\r\n"),
        Frame::Map(vec![(simple("a"), Frame::Integer(1)), (simple("b"), Frame::Map(vec![])),])
    );
    assert_eq!(one(b"=8\r\ntxt:role\r\n").text(), Some(&b"role"[..]), "INFO under RESP3");
}

#[test]
fn attributes_are_dropped_wherever_they_stand() {
    assert_eq!(one(b"|1\r\n+ttl\r\n:1\r\n+OK\r\n"), simple("OK"));
    assert_eq!(
        one(b"*2\r\n|1\r\n+ttl\r\n*1\r\n:1\r\n:1\r\n|0\r\n:2\r\n"),
        Frame::Array(vec![Frame::Integer(1), Frame::Integer(2)])
    );
}

#[test]
fn replies_of_one_connection_follow_each_other() {
    let text = b"+OK\r\n*1\r\n+a\r\n$1\r\nb\r\n:1";
    let (frames, rest) = decode_all(text, &Limits::DEFAULT).expect("replies");
    assert_eq!(frames, [simple("OK"), Frame::Array(vec![simple("a")]), bulk("b")]);
    assert_eq!(rest, 2, "what is incomplete stays");
}

#[test]
fn refuses_what_is_no_reply() {
    for (text, error) in [
        (&b"HTTP/1.1 400 Bad Request"[..], ProtocolError::UnknownType(b'H')),
        (b"\r\n", ProtocolError::UnknownType(b'\r')),
        (b"+OK\n", ProtocolError::LineEnd),
        (b"+\n", ProtocolError::LineEnd),
        (b"$1\r\nabc", ProtocolError::BulkEnd),
        (b":1a\r\n", ProtocolError::Value),
        (b":\r\n", ProtocolError::Value),
        (b":9223372036854775808\r\n", ProtocolError::Value),
        (b"$\r\n", ProtocolError::Value),
        (b"$-2\r\n", ProtocolError::Value),
        (b"$+1\r\n", ProtocolError::Value),
        (b"$?\r\n", ProtocolError::Value),
        (b"*-2\r\n", ProtocolError::Value),
        (b"$99999999999999999999\r\n", ProtocolError::Value),
        (b"#x\r\n", ProtocolError::Value),
        (b"_x\r\n", ProtocolError::Value),
        (b"(1.5\r\n", ProtocolError::Value),
        (b"(-\r\n", ProtocolError::Value),
        (b"=3\r\ntxt\r\n", ProtocolError::Value),
    ] {
        assert_eq!(refused(text, &Limits::DEFAULT), error, "{}", text.escape_ascii());
    }
}

#[test]
fn every_limit_is_the_last_that_passes() {
    let text = "x".repeat(29);
    decode_all(format!("+{text}\r\n").as_bytes(), &SMALL).expect("a line of 32 bytes");
    assert_eq!(
        refused(format!("+{text}xx").as_bytes(), &SMALL),
        ProtocolError::LineTooLong(32),
        "a line that does not end is refused before its end"
    );
    decode_all(b"$64\r\n", &SMALL).expect("64 bytes may be announced");
    assert_eq!(refused(b"$65\r\n", &SMALL), ProtocolError::BulkTooLong(64));
    decode_all(b"*16\r\n", &SMALL).expect("16 elements");
    assert_eq!(refused(b"*17\r\n", &SMALL), ProtocolError::TooManyElements(16));
    assert_eq!(
        refused(b"*8\r\n*9\r\n", &SMALL),
        ProtocolError::TooManyElements(16),
        "elements are counted over the whole reply"
    );
    assert_eq!(refused(b"%9\r\n", &SMALL), ProtocolError::TooManyElements(16), "a pair is two");
    decode_all(b"*1\r\n*1\r\n*1\r\n:1\r\n", &SMALL).expect("3 deep");
    for fourth in ["*1", "*0"] {
        assert_eq!(
            refused(format!("*1\r\n*1\r\n*1\r\n{fourth}\r\n").as_bytes(), &SMALL),
            ProtocolError::TooDeep(3)
        );
    }
    // 4 + 3 * 71 bytes are taken, 39 are left.
    let start = format!("*4\r\n{}", format!("$64\r\n{}\r\n", "x".repeat(64)).repeat(3));
    decode_all(format!("{start}$32\r\n").as_bytes(), &SMALL).expect("256 bytes");
    assert_eq!(
        refused(format!("{start}$33\r\n").as_bytes(), &SMALL),
        ProtocolError::ReplyTooLong(256)
    );
}

#[test]
fn a_reply_that_never_ends_is_refused() {
    let endless = std::iter::repeat_n(&b"|0\r\n"[..], 1000);
    assert_eq!(
        decode_chunks(endless, &SMALL),
        Err(ProtocolError::ReplyTooLong(256)),
        "attributes of nothing"
    );
    let nested = std::iter::repeat_n(&b"*1\r\n"[..], 1000);
    assert_eq!(decode_chunks(nested, &SMALL), Err(ProtocolError::TooDeep(3)));
}

#[test]
fn an_announced_length_reserves_nothing() {
    let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::with_capacity(64));
    buffer.extend_from_slice(b"*16384\r\n$1048576\r\n");
    let capacity = buffer.capacity();
    assert_eq!(decoder.decode(&mut buffer, &Limits::DEFAULT), Ok(None));
    assert!(buffer.capacity() <= capacity);
    assert_eq!(decoder.open[0].items.capacity(), 0);
}

/// Were the beginning looked at again with every piece, each of these would take minutes.
#[test]
fn small_pieces_cost_no_more_than_one() {
    let many = format!("*16384\r\n{}", "$50\r\n".to_owned() + &"x".repeat(50) + "\r\n");
    let many = many.clone() + &many[8..].repeat(16383);
    let large = format!("$1048576\r\n{}\r\n", "x".repeat(1024 * 1024));
    let long = format!("+{}\r\n", "x".repeat(1024 * 1024));
    let limits = Limits { line_bytes_max: usize::MAX, ..Limits::DEFAULT };
    for text in [many, large, long] {
        let (frames, rest) = decode_chunks(text.as_bytes().chunks(3), &limits).expect("a reply");
        assert_eq!((frames.len(), rest), (1, 0));
    }
}

#[test]
fn a_command_is_an_array_of_strings() {
    let mut out = BytesMut::new();
    encode_command(&mut out, &["REPLICAOF", "::1", "6379"]);
    assert_eq!(&out[..], b"*3\r\n$9\r\nREPLICAOF\r\n$3\r\n::1\r\n$4\r\n6379\r\n");
    let mut out = BytesMut::new();
    encode_command(&mut out, &[&b"AUTH"[..], b"\r\n\0\xff"]);
    assert_eq!(&out[..], b"*2\r\n$4\r\nAUTH\r\n$4\r\n\r\n\0\xff\r\n");
}

#[test]
fn a_line_cannot_be_broken_by_its_text() {
    let frame = Frame::Error("ERR a\r\n+OK\r\n".into());
    assert_eq!(&encoded(&frame)[..], b"-ERR a  +OK  \r\n");
}

/// Frames that RESP2 has, except for `Null`, of which it has two.
fn resp2_frame() -> impl Strategy<Value = Frame> {
    nested(
        prop_oneof![
            "[ -~]{0,20}".prop_map(|text| Frame::Simple(text.into())),
            "[ -~]{0,20}".prop_map(|text| Frame::Error(text.into())),
            any::<i64>().prop_map(Frame::Integer),
            vec(any::<u8>(), 0..40).prop_map(|text| Frame::Bulk(text.into())),
            Just(Frame::Null),
        ],
        false,
    )
}

fn resp3_frame() -> impl Strategy<Value = Frame> {
    nested(
        prop_oneof![
            "[ -~]{0,20}".prop_map(|text| Frame::Simple(text.into())),
            any::<bool>().prop_map(Frame::Boolean),
            (-1e300..1e300).prop_map(Frame::Double),
            "-?[0-9]{1,40}".prop_map(|text| Frame::BigNumber(text.into())),
            vec(any::<u8>(), 0..40)
                .prop_map(|text| Frame::Verbatim { format: *b"txt", text: text.into() }),
        ],
        true,
    )
}

fn nested(
    leaf: impl Strategy<Value = Frame> + 'static,
    resp3: bool,
) -> impl Strategy<Value = Frame> {
    let leaf = leaf.boxed();
    leaf.clone().prop_recursive(6, 64, 6, move |inner| {
        let array = vec(inner.clone(), 0..6).prop_map(Frame::Array);
        if !resp3 {
            return array.boxed();
        }
        // The other decoder accepts neither sets nor keys that have parts.
        prop_oneof![
            array,
            vec(leaf.clone(), 0..6).prop_map(Frame::Set),
            vec(inner.clone(), 0..6).prop_map(Frame::Push),
            vec((leaf.clone(), inner), 0..4).prop_map(Frame::Map),
        ]
        .boxed()
    })
}

/// Bytes that often look like the protocol.
fn protocol_soup() -> impl Strategy<Value = Vec<u8>> {
    let scrap = prop_oneof![
        4 => "[+:$!=*~>%|_#,(-]-?[0-9]{0,2}\r\n".prop_map(String::into_bytes),
        2 => resp2_frame().prop_map(|frame| encoded(&frame).to_vec()),
        1 => resp3_frame().prop_map(|frame| encoded(&frame).to_vec()),
        1 => vec(any::<u8>(), 0..6),
    ];
    vec(scrap, 0..12).prop_map(|scraps| scraps.concat())
}

fn split<'a>(text: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn children(frame: &Frame) -> Vec<&Frame> {
    match frame {
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => items.iter().collect(),
        Frame::Map(pairs) => pairs.iter().flat_map(|(k, v)| [k, v]).collect(),
        Frame::Simple(_)
        | Frame::Error(_)
        | Frame::Integer(_)
        | Frame::Bulk(_)
        | Frame::Verbatim { .. }
        | Frame::Null
        | Frame::Boolean(_)
        | Frame::Double(_)
        | Frame::BigNumber(_) => vec![],
    }
}

/// Elements, depth and bytes of text.
fn size(frame: &Frame) -> (usize, usize, usize) {
    let text_bytes = match frame {
        Frame::Error(text) | Frame::BigNumber(text) => text.len(),
        Frame::Simple(_)
        | Frame::Integer(_)
        | Frame::Bulk(_)
        | Frame::Verbatim { .. }
        | Frame::Null
        | Frame::Boolean(_)
        | Frame::Double(_)
        | Frame::Array(_)
        | Frame::Set(_)
        | Frame::Push(_)
        | Frame::Map(_) => frame.text().map_or(0, <[u8]>::len),
    };
    let is_nest = matches!(frame, Frame::Array(_) | Frame::Set(_) | Frame::Push(_) | Frame::Map(_));
    children(frame)
        .into_iter()
        .map(size)
        .fold((0, usize::from(is_nest), text_bytes), |(elements, depth, bytes), (e, d, b)| {
            (elements + 1 + e, depth.max(d + 1), bytes + b)
        })
}

fn from_resp2(frame: resp2::types::OwnedFrame) -> Frame {
    use resp2::types::OwnedFrame as Oracle;
    match frame {
        Oracle::SimpleString(text) => Frame::Simple(text.into()),
        Oracle::Error(text) => Frame::Error(text.into()),
        Oracle::Integer(number) => Frame::Integer(number),
        Oracle::BulkString(text) => Frame::Bulk(text.into()),
        Oracle::Array(items) => Frame::Array(items.into_iter().map(from_resp2).collect()),
        Oracle::Null => Frame::Null,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(frame in prop_oneof![resp2_frame(), resp3_frame()]) {
        prop_assert_eq!(one(&encoded(&frame)), frame);
    }

    #[test]
    fn pieces_make_no_difference(
        text in protocol_soup(),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let whole = decode_all(&text, &SMALL);
        let pieces = decode_chunks(split(&text, &cuts), &SMALL);
        prop_assert_eq!(&pieces, &whole);
        let bytes = decode_chunks(text.chunks(1), &SMALL);
        prop_assert_eq!(&bytes, &whole);
    }

    #[test]
    fn nothing_exceeds_the_limits(text in prop_oneof![protocol_soup(), vec(any::<u8>(), 0..300)]) {
        let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::from(&text[..]));
        while let Ok(Some(frame)) = decoder.decode(&mut buffer, &SMALL) {
            let (elements, depth, bytes) = size(&frame);
            prop_assert!(elements <= SMALL.reply_elements_max);
            prop_assert!(depth <= SMALL.depth_max);
            prop_assert!(bytes <= SMALL.reply_bytes_max);
        }
    }

    #[test]
    fn agrees_with_another_decoder(frame in resp2_frame()) {
        let text = encoded(&frame);
        let (theirs, bytes) = resp2::decode::decode(&text).expect("valid").expect("complete");
        prop_assert_eq!(bytes, text.len());
        prop_assert_eq!(from_resp2(theirs), one(&text));
    }

    #[test]
    fn both_decoders_read_damaged_replies_alike(
        frame in resp2_frame(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"+-:$*0123456789\r\n".to_vec())],
    ) {
        let mut text = encoded(&frame);
        let at = at.index(text.len());
        text[at] = byte;
        let theirs = resp2::decode::decode(&text);
        let mut rest = text.clone();
        let ours = Decoder::new().decode(&mut rest, &Limits::DEFAULT);
        if let (Ok(Some((theirs, bytes))), Ok(Some(ours))) = (theirs, ours) {
            prop_assert_eq!(bytes, text.len() - rest.len());
            prop_assert_eq!(from_resp2(theirs), ours);
        }
    }

    #[test]
    fn another_decoder_reads_what_we_write_in_resp3(frame in resp3_frame()) {
        let text = encoded(&frame);
        let decoded = resp3::decode::complete::decode(&text).expect("valid");
        prop_assert_eq!(decoded.expect("complete").1, text.len());
    }
}
