//! tmp
pub fn compress(s: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut i = 0;
    let mut lit = 0;
    let flush = |out: &mut Vec<u8>, l: &[u8]| {
        for c in l.chunks(32) {
            out.push(c.len() as u8 - 1);
            out.extend_from_slice(c);
        }
    };
    let mut map = std::collections::HashMap::new();
    while i + 3 <= s.len() {
        let k = [s[i], s[i + 1], s[i + 2]];
        if let Some(&p) = map.get(&k) {
            let p: usize = p;
            if i - p <= 8192 {
                let mut n = 3;
                while n < 264 && i + n < s.len() && s[p + n] == s[i + n] {
                    n += 1;
                }
                flush(&mut out, &s[lit..i]);
                let off = i - p - 1;
                let l = n - 2;
                if l < 7 {
                    out.push((l << 5) as u8 | (off >> 8) as u8);
                } else {
                    out.push(7 << 5 | (off >> 8) as u8);
                    out.push((l - 7) as u8);
                }
                out.push(off as u8);
                map.insert(k, i);
                i += n;
                lit = i;
                continue;
            }
        }
        map.insert(k, i);
        i += 1;
    }
    flush(&mut out, &s[lit..]);
    (out.len() <= max).then_some(out)
}
pub fn decompress(s: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < s.len() {
        let c = s[i] as usize;
        i += 1;
        if c < 32 {
            out.extend_from_slice(s.get(i..i + c + 1)?);
            i += c + 1;
        } else {
            let mut l = c >> 5;
            if l == 7 {
                l += *s.get(i)? as usize;
                i += 1;
            }
            let off = ((c & 31) << 8 | *s.get(i)? as usize) + 1;
            i += 1;
            let st = out.len().checked_sub(off)?;
            for k in 0..l + 2 {
                let b = out[st + k];
                out.push(b);
            }
        }
    }
    (out.len() == len).then_some(out)
}
