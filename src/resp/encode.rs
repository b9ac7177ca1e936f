//! Commands in the form of the request protocol, as this process sends or logs them: arrays of bulk strings.

/// Appends how many arguments follow.
pub(crate) fn put_header(buf: &mut Vec<u8>, args: usize) {
    put_number(buf, b'*', args);
}

/// Appends how many bytes follow as an argument. They end with a line of their own.
pub(crate) fn put_bulk_header(buf: &mut Vec<u8>, len: usize) {
    put_number(buf, b'$', len);
}

fn put_number(buf: &mut Vec<u8>, sign: u8, number: usize) {
    buf.push(sign);
    buf.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    buf.extend_from_slice(b"\r\n");
}

pub(crate) fn put_arg(buf: &mut Vec<u8>, arg: &[u8]) {
    put_bulk_header(buf, arg.len());
    buf.extend_from_slice(arg);
    buf.extend_from_slice(b"\r\n");
}

/// Appends a command in the form of the request protocol.
pub(crate) fn put_command(buf: &mut Vec<u8>, args: &[&[u8]]) {
    put_header(buf, args.len());
    args.iter().for_each(|arg| put_arg(buf, arg));
}

/// A command by itself.
pub(crate) fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    put_command(&mut out, args);
    out
}
