"""What `large` measures: the data sets, the rows, and the commands that take no large input, each with its reason.

A row is a command as text, split at blanks, with more arguments after it. A word that names a data set of DATA (before a colon)
has that data set built first. `tmp` is the row's own: `prep` is sent before each round, unmeasured.
"""
import random
import struct


class Row:
    def __init__(self, text, args=(), prep=(), times=1, db=0, cluster=False, resp3=False, title=None, once=False, many=()):
        """`args` follow the words of `text`; the whole is sent `times` in a row, or each of `many` once."""
        self.words = [w.encode() for w in text.split()] + [a if isinstance(a, (bytes, tuple)) else str(a).encode() for a in args]
        self.prep = [p.encode().split() if isinstance(p, str) else p for p in ([prep] if isinstance(prep, str) else prep)]
        self.sent = [self.words] * times if not many else list(many)
        self.db, self.cluster, self.resp3, self.once = db, cluster, resp3, once
        self.needs_slots = cluster and b"CLUSTER" not in self.words
        self.title = title or text + (f" ... ({len(args)} more)" if args else "") + (f"  x{times}" if times > 1 else "")


def items(prefix, count, start=0, step=1):
    """`count` texts of one length."""
    return [b"%s:%08d" % (prefix.encode(), start + i * step) for i in range(count)]


def pairs(names, values):
    return [x for pair in zip(names, values) for x in pair]


def chunks(words, rest, size=5000):
    """The command `words` over and over, with `size` of `rest` each."""
    words = [w.encode() for w in words.split()]
    return (words + rest[i:i + size] for i in range(0, len(rest), size))


def scored(count, prefix="m", start=0):
    return pairs([b"%d" % (i * 7919 % count) for i in range(count)], items(prefix, count, start))


def points(count):
    r = random.Random(4)
    return [x for i in range(count)
            for x in (b"%.6f" % r.uniform(-20, 20), b"%.6f" % r.uniform(30, 60), b"p:%08d" % i)]


def stream(name, count, groups=()):
    """A stream; each group has as many pending entries as it is told, of two consumers."""
    key = name.encode()
    for i in range(count):
        yield [b"XADD", key, b"%d-1" % (i + 1), b"field", b"value:%08d" % i, b"other", b"%d" % i]
    for group, pending in groups:
        yield [b"XGROUP", b"CREATE", key, group, b"0"]
        for consumer in (b"one", b"two"):
            yield [b"XREADGROUP", b"GROUP", group, consumer, b"COUNT", b"%d" % (pending // 2), b"STREAMS", key, b">"]


def several(count, each):
    for i in range(count):
        yield from each(i)


# Bytes of a large string. At a power of two ours just fits a size class of the allocator, and Redis's, which has a header, gets
# the next larger one: whether there is room to append would be chance.
BIG = 15_000_000
N = 100_000            # elements of a large collection
ARGS = 10_000          # arguments of a large request

RANDOM = random.Random(1).randbytes(BIG)

DATA = {
    # Strings. `zeros` has its only bit at the end.
    "zeros": lambda: [[b"SETBIT", b"zeros", b"%d" % (BIG * 8 - 1), b"1"]],
    "ones": lambda: [[b"SET", b"ones", b"\xff" * BIG]],
    "noise": lambda: [[b"SET", b"noise", RANDOM]],
    "noise2": lambda: [[b"SET", b"noise2", RANDOM[BIG // 3:]]],
    "text1": lambda: [[b"SET", b"text1", RANDOM[:4000]]],
    "text2": lambda: [[b"SET", b"text2", RANDOM[2000:6000]]],
    "s": lambda: chunks("MSET", pairs(items("s", ARGS), items("v", ARGS))),
    "hll": lambda: [[b"PFADD", b"hll"] + items("m", ARGS)],
    "hlls": lambda: several(200, lambda i: [[b"PFADD", b"hlls:%d" % i] + items("m", 2000, i * 1000)]),
    # Lists. `lp` is a single listpack, `lbig` has elements of 10 KB.
    "l": lambda: chunks("RPUSH l", items("m", N)),
    "lint": lambda: chunks("RPUSH lint", [b"%d" % (i * 7919 % N) for i in range(N)]),
    "lp": lambda: [[b"RPUSH", b"lp"] + items("m", 120)],
    "lbig": lambda: chunks("RPUSH lbig", [b"%08d" % i + b"x" * 10_000 for i in range(2000)], 100),
    # Sets. `set2` shares half with `set`; `iset` is a table of numbers, `intset` the compact form, `sp` a listpack.
    "set": lambda: chunks("SADD set", items("m", N)),
    "set2": lambda: chunks("SADD set2", items("m", N, N // 2)),
    "set3": lambda: chunks("SADD set3", items("m", ARGS, step=7)),
    "iset": lambda: chunks("SADD iset", [b"%d" % (i * 3) for i in range(N)]),
    "iset2": lambda: chunks("SADD iset2", [b"%d" % (i * 2) for i in range(N)]),
    "intset": lambda: [[b"SADD", b"intset"] + [b"%d" % (i * 3) for i in range(512)]],
    "intset2": lambda: [[b"SADD", b"intset2"] + [b"%d" % (i * 2) for i in range(512)]],
    "sp": lambda: [[b"SADD", b"sp"] + items("m", 128)],
    "sp2": lambda: [[b"SADD", b"sp2"] + items("m", 128, 64)],
    "sets": lambda: several(200, lambda i: [[b"SADD", b"sets:%d" % i] + items("m", 2000, i * 1000)]),
    # Hashes.
    "h": lambda: chunks("HSET h", pairs(items("f", N), items("v", N)), 10_000),
    "hp": lambda: [[b"HSET", b"hp"] + pairs(items("f", 128), items("v", 128))],
    # Sorted sets. `zlex` has one score.
    "z": lambda: chunks("ZADD z", scored(N), 10_000),
    "z2": lambda: chunks("ZADD z2", scored(N, start=N // 2), 10_000),
    "z3": lambda: chunks("ZADD z3", scored(ARGS), 10_000),
    "zlex": lambda: chunks("ZADD zlex", pairs([b"0"] * N, items("m", N)), 10_000),
    "zp": lambda: [[b"ZADD", b"zp"] + scored(128)],
    "zp2": lambda: [[b"ZADD", b"zp2"] + scored(128, start=64)],
    "zs": lambda: several(200, lambda i: [[b"ZADD", b"zs:%d" % i] + scored(2000, start=i * 1000)]),
    "geo": lambda: chunks("GEOADD geo", points(100_000), 9_000),
    # Streams. `xg` has groups with 50,000 and 10,000 pending entries.
    "x": lambda: stream("x", 100_000),
    "xg": lambda: stream("xg", 50_000, [(b"g", 50_000), (b"g2", 10_000)]),
    "xs": lambda: several(1000, lambda i: [[b"XADD", b"xs:%d" % i, b"1-1", b"f", b"v"]]),
    # Elsewhere: a million keys in database 1, and in database 2 keys that have all run out.
    "million": lambda: [[b"SELECT", b"1"], [b"DEBUG", b"POPULATE", b"1000000", b"key", b"8"],
                        [b"RPUSH", b"list", b"x"], [b"SELECT", b"0"]],
    "sparse": lambda: [[b"SELECT", b"2"], [b"DEBUG", b"SET-ACTIVE-EXPIRE", b"0"]]
        + [[b"SET", b"gone:%d" % i, b"x", b"PX", b"1"] for i in range(20_000)] + [[b"SELECT", b"0"]],
    "weights": lambda: chunks("MSET", pairs([b"weights:%d" % i for i in range(20_000)],
                                            [b"%d" % (i * 7919 % 20_000) for i in range(20_000)])),
    "refs": lambda: chunks("RPUSH refs", [b"%d" % i for i in range(20_000)]),
    "libs": lambda: [[b"FUNCTION", b"LOAD", b"REPLACE", library(b"libs%d" % i)] for i in range(100)],
}


def library(name, size=50):
    return (b"#!lua name=%s\n" % name) + b"".join(
        b"redis.register_function('%s_%d', function(keys, args) return #keys end)\n" % (name, i) for i in range(size))


def copy(name):
    return f"COPY {name} tmp REPLACE"


def numbered(prefix, count):
    return [b"%s:%d" % (prefix.encode(), i) for i in range(count)]


def ids(count):
    return [b"%d-1" % (i * 3 + 1) for i in range(count)]


def dump(name):
    """DUMP's reply is RESTORE's argument: the runner puts it in the place of this."""
    return ("dump", name)


def strings():
    fresh = pairs(items("tmp", ARGS), items("v", ARGS))
    gone = [[b"UNLINK"] + items("tmp", ARGS)]
    return [
        Row("SET tmp", [RANDOM]), Row("SETNX tmp", [RANDOM], prep="DEL tmp"), Row("SETEX tmp 1000", [RANDOM]),
        Row("PSETEX tmp 100000", [RANDOM]), Row("GETSET tmp", [RANDOM], prep="SET tmp x"),
        Row("GET noise"), Row("GETDEL tmp", prep=copy("noise")), Row("GETEX tmp EX 100", prep=copy("noise")),
        Row("GETRANGE noise 0 -1"), Row("GETRANGE noise 1000000 9000000"), Row("SUBSTR noise 5000 -5000"),
        Row("STRLEN noise", times=100), Row("APPEND tmp", [RANDOM[:1 << 20]], prep=copy("noise")),
        Row("APPEND tmp 0123456789", times=2000, prep="DEL tmp"),
        Row(f"SETRANGE tmp {BIG} x", prep="DEL tmp"), Row(f"SETRANGE tmp {BIG * 2} x", prep=copy("noise")),
        Row("SETRANGE tmp", [100, RANDOM[:1 << 20]], prep=copy("noise")),
        Row("MGET", items("s", ARGS), prep=[["use", "s"]]), Row("MSET", fresh, prep=gone), Row("MSET", fresh),
        Row("MSETNX", fresh, prep=gone), Row("LCS text1 text2"), Row("LCS text1 text2 LEN"),
        Row("LCS text1 text2 IDX WITHMATCHLEN"),
    ]


def bits():
    get = [x for i in range(3000) for x in (b"GET", b"u13", b"%d" % (i * 1000))]
    change = [x for i in range(3000) for x in (b"INCRBY", b"i31", b"%d" % (i * 1001), b"77", b"SET", b"u5", b"#%d" % i, b"9")]
    end = BIG * 8
    return [
        Row("BITCOUNT noise"), Row("BITCOUNT zeros"), Row(f"BITCOUNT noise 5 {end - 77} BIT"), Row("BITCOUNT noise 1001 -2000"),
        Row("BITPOS zeros 1"), Row("BITPOS ones 0"), Row("BITPOS zeros 1 3"), Row(f"BITPOS zeros 1 77 {end - 9} BIT"),
        Row("BITPOS ones 0 0 -1"), Row("GETBIT noise 10000000", times=100), Row("SETBIT tmp 10000000 1", prep=copy("noise")),
        Row(f"SETBIT tmp {end} 1", prep="DEL tmp"), Row(f"SETBIT tmp {end * 2} 1", prep=copy("noise")),
        Row("BITOP AND tmp noise noise2 ones"), Row("BITOP OR tmp noise noise2 zeros"), Row("BITOP XOR tmp noise noise2"),
        Row("BITOP NOT tmp noise"),
        Row("BITOP AND tmp", [b"noise"] * 2 + [b"noise2"] * 2 + [b"ones"] * 2, prep=[["use", "noise noise2 ones"]]),
        Row("BITOP OR tmp", items("s", ARGS), prep=[["use", "s"]]),
        Row("BITFIELD noise", get), Row("BITFIELD tmp", change, prep=copy("noise2")), Row("BITFIELD_RO noise", get),
        Row(f"BITFIELD tmp SET u8 {end} 1", prep="DEL tmp"),
    ]


def hlls():
    every = numbered("hlls", 200)
    use = [["use", "hlls"]]
    return [
        Row("PFADD tmp", items("m", ARGS), prep="DEL tmp"), Row("PFADD tmp", items("q", ARGS), prep=copy("hll")),
        Row("PFCOUNT", every, prep=use), Row("PFCOUNT hll", prep=["PFADD hll again", "PFADD hll once"], times=10),
        Row("PFMERGE tmp", every, prep=use + ["DEL tmp"]), Row("PFDEBUG GETREG hll"),
    ]


def lists():
    mid = N // 2
    rows = [
        Row("RPUSH tmp", items("m", ARGS), prep="DEL tmp"), Row("LPUSH tmp", items("m", ARGS), prep="DEL tmp"),
        Row("RPUSHX tmp", items("m", ARGS), prep=copy("l")), Row("LPUSHX tmp", items("m", ARGS), prep=copy("l")),
        Row("LINDEX l 50000"), Row("LINDEX l 99000", times=10), Row("LINDEX lbig 1000", times=10), Row("LLEN l", times=100),
        Row("LINSERT tmp BEFORE m:00050000 new", prep=copy("l")), Row("LINSERT tmp AFTER m:00099999 new", prep=copy("l")),
        Row("LINSERT tmp BEFORE none new", prep=copy("l")), Row("LPOS l m:00099990"), Row("LPOS l none"),
        Row("LPOS l m:00000001 RANK -1"), Row("LPOS lint 777 COUNT 0 MAXLEN 0"), Row("LPOS lbig none"),
        Row("LRANGE l 0 -1"), Row(f"LRANGE l {mid} {mid + 100}", times=10), Row("LRANGE lbig 0 -1"), Row("LRANGE lint 0 -1"),
        Row("LREM tmp 0 m:00099999", prep=copy("l")), Row("LREM tmp -1 m:00000001", prep=copy("l")),
        Row("LREM tmp 0 none", prep=copy("lint")),
        Row("LREM tmp 0 x", prep=["DEL tmp", [b"RPUSH", b"tmp"] + [b"x", b"y"] * 50_000]),
        Row(f"LSET tmp {mid} new", prep=copy("l")),
        Row(f"LSET tmp {mid} {'w' * 20000}", prep=copy("l"), title=f"LSET tmp {mid} (20 KB)"),
        Row(f"LTRIM tmp {mid} {mid + 10}", prep=copy("l")), Row("LTRIM tmp 1000 -1000", prep=copy("l")),
        Row("LTRIM tmp 1 0", prep=copy("l")),
        Row("LPOP tmp 50000", prep=copy("l")), Row("RPOP tmp 50000", prep=copy("l")), Row("RPOP tmp 100000", prep=copy("l")),
        Row("LMPOP 1 tmp LEFT COUNT 50000", prep=copy("l")),
        Row("LMPOP", [ARGS + 1] + items("none", ARGS) + ["l", "LEFT"], prep=[["use", "l"]]),
        Row("BLMPOP 1 1 tmp RIGHT COUNT 50000", prep=copy("l")),
        Row("BLPOP", items("none", ARGS) + ["tmp", 1], prep=copy("lp")),
        Row("BRPOP", items("none", ARGS) + ["tmp", 1], prep=copy("lp")),
        Row("LMOVE lbig lbig LEFT RIGHT", times=1000), Row("BLMOVE lbig lbig RIGHT LEFT 1", times=1000),
        Row("RPOPLPUSH l l", times=1000), Row("BRPOPLPUSH lbig lbig 1", times=1000), Row("LRANGE lp 0 -1", times=100),
        Row("LINDEX lp 60", times=100), Row("LPOS lp none", times=100),
    ]
    return rows


def sets():
    every = numbered("sets", 200)
    use = [["use", "sets"]]
    rows = [
        Row("SADD tmp", items("m", ARGS), prep="DEL tmp"), Row("SADD tmp", items("q", ARGS), prep=copy("set")),
        Row("SADD tmp", list(range(500)), prep="DEL tmp", times=10),
        Row("SADD tmp", list(range(0, 100_000, 10)), prep="DEL tmp"),
        Row("SREM tmp", items("m", ARGS, 3, 5), prep=copy("set")), Row("SCARD set", times=100), Row("SMEMBERS set"),
        Row("SMEMBERS iset"),
        Row("SMEMBERS intset", times=20), Row("SISMEMBER set m:00000777", times=100),
        Row("SMISMEMBER set", items("m", ARGS, 3, 20)),
        Row("SMISMEMBER iset", [i * 5 for i in range(ARGS)]), Row("SMISMEMBER sp", items("m", ARGS)),
        Row("SMISMEMBER intset", list(range(ARGS))),
        Row("SMOVE set set2 none", times=100), Row("SPOP tmp 10", prep=copy("set")), Row("SPOP tmp 10000", prep=copy("set")),
        Row("SPOP tmp 50000", prep=copy("set")), Row("SPOP tmp 99990", prep=copy("set")),
        Row("SPOP tmp 100000", prep=copy("set")),
        Row("SPOP tmp 99990", prep=copy("iset")), Row("SPOP tmp 500", prep=copy("intset")),
        Row("SPOP tmp 100", prep=copy("sp")),
        Row("SRANDMEMBER set 10", times=100), Row("SRANDMEMBER set 20000"), Row("SRANDMEMBER set 60000"),
        Row("SRANDMEMBER set 99990"),
        Row("SRANDMEMBER set -100000"), Row("SRANDMEMBER sp -100000"), Row("SRANDMEMBER intset -100000"),
        Row("SRANDMEMBER sp 100", times=20),
        Row("SRANDMEMBER intset 400", times=20), Row("SSCAN set 0 COUNT 100000"), Row("SSCAN set 0 MATCH *77* COUNT 1000000"),
        Row("SINTER sp sp2", times=20), Row("SINTER intset intset2", times=20), Row("SUNION sp sp2", times=20),
        Row("SDIFF sp sp2", times=20),
        Row("SUNION intset intset2", times=20), Row("SDIFF intset intset2", times=20), Row("SINTERCARD 2 set set2"),
        Row("SINTERCARD 2 set set2 LIMIT 30000"), Row("SINTER", every, prep=use), Row("SUNION", every, prep=use),
        Row("SDIFF", every, prep=use),
        Row("SDIFF set3", every, prep=use),
    ]
    for op in ("SINTER", "SUNION", "SDIFF"):
        for two in ("set set2", "set set3", "set3 set", "iset iset2", "set iset"):
            rows += [Row(f"{op} {two}"), Row(f"{op}STORE tmp {two}")]
    return rows


def hashes():
    fresh = pairs(items("f", ARGS), items("v", ARGS))
    return [
        Row("HSET tmp", fresh, prep="DEL tmp"), Row("HSET tmp", fresh, prep=copy("h")), Row("HMSET tmp", fresh, prep="DEL tmp"),
        Row("HSET tmp", fresh[:200], prep="DEL tmp", times=20), Row("HDEL tmp", items("f", ARGS, 3, 5), prep=copy("h")),
        Row("HSET tmp field", [RANDOM], prep="DEL tmp"), Row("HSETNX tmp field", [RANDOM], prep="DEL tmp"),
        Row("HGET tmp field", prep=["DEL tmp", [b"HSET", b"tmp", b"field", RANDOM]]),
        Row("HSTRLEN tmp field", prep=["DEL tmp", [b"HSET", b"tmp", b"field", RANDOM]], times=50),
        Row("HMGET h", items("f", ARGS, 3, 15)), Row("HMGET hp", items("f", ARGS)), Row("HGETALL h"), Row("HKEYS h"),
        Row("HVALS h"), Row("HLEN h", times=100),
        Row("HEXISTS h f:00000777", times=100), Row("HGETALL hp", times=50), Row("HRANDFIELD h 20000"),
        Row("HRANDFIELD h 60000 WITHVALUES"), Row("HRANDFIELD h -100000"),
        Row("HRANDFIELD h -100000 WITHVALUES"), Row("HRANDFIELD hp -100000"), Row("HRANDFIELD hp -100000 WITHVALUES"),
        Row("HRANDFIELD hp 100", times=20),
        Row("HRANDFIELD hp", times=100), Row("HSCAN h 0 COUNT 100000"), Row("HSCAN h 0 MATCH *77* COUNT 1000000"),
    ]


def zsets():
    fresh = scored(ARGS)
    every = numbered("zs", 200)
    use = [["use", "zs"]]
    mid = N // 2
    rows = [
        Row("ZADD tmp", fresh, prep="DEL tmp"), Row("ZADD tmp", scored(ARGS, "q"), prep=copy("z")),
        Row("ZADD tmp GT CH", fresh, prep=copy("z")),
        Row("ZADD tmp", fresh[:200], prep="DEL tmp", times=20), Row("ZREM tmp", items("m", ARGS, 3, 5), prep=copy("z")),
        Row("ZCARD z", times=100),
        Row("ZINCRBY tmp 100000 m:00000777", prep=copy("z"), times=50), Row("ZSCORE z m:00000777", times=100),
        Row("ZMSCORE z", items("m", ARGS, 3, 15)), Row("ZMSCORE zp", items("m", ARGS)),
        Row("ZRANK z m:00000777", times=100), Row("ZREVRANK z m:00000777 WITHSCORE", times=100),
        Row("ZCOUNT z 1000 75000", times=50),
        Row("ZLEXCOUNT zlex [m:00001000 [m:00075000", times=50), Row("ZRANGE z 0 -1"), Row("ZRANGE z 0 -1 WITHSCORES"),
        Row("ZRANGE z 0 -1 REV"),
        Row(f"ZRANGE z {mid} {mid + 10}", times=50), Row("ZRANGE z 1000 75000 BYSCORE"),
        Row("ZRANGE z -inf +inf BYSCORE LIMIT 75000 10"),
        Row("ZRANGE z +inf -inf BYSCORE REV LIMIT 75000 10"), Row("ZRANGE zlex - + BYLEX"),
        Row("ZRANGE zlex - + BYLEX LIMIT 75000 10"),
        Row("ZREVRANGE z 0 -1"), Row("ZRANGEBYSCORE z -inf +inf"),
        Row("ZRANGEBYSCORE z -inf +inf WITHSCORES LIMIT 25000 50000"), Row("ZREVRANGEBYSCORE z +inf -inf"),
        Row("ZRANGEBYLEX zlex - +"), Row("ZREVRANGEBYLEX zlex + -"), Row("ZRANGE zp 0 -1", times=50),
        Row("ZRANGESTORE tmp z 0 -1"), Row("ZRANGESTORE tmp z 1000 75000 BYSCORE"),
        Row("ZRANGESTORE tmp zlex - + BYLEX"), Row("ZRANGESTORE tmp zp 0 -1", times=20),
        Row("ZREMRANGEBYRANK tmp 100 75000", prep=copy("z")),
        Row("ZREMRANGEBYSCORE tmp 100 75000", prep=copy("z")),
        Row("ZREMRANGEBYLEX tmp [m:00001000 [m:00075000", prep=copy("zlex")), Row("ZPOPMIN tmp 50000", prep=copy("z")),
        Row("ZPOPMAX tmp 50000", prep=copy("z")), Row("ZMPOP 1 tmp MIN COUNT 50000", prep=copy("z")),
        Row("ZMPOP", [ARGS + 1] + items("none", ARGS) + ["z3", "MIN"], prep=[["use", "z3"]]),
        Row("BZMPOP 1 1 tmp MAX COUNT 50000", prep=copy("z")),
        Row("BZPOPMIN", items("none", ARGS) + ["tmp", 1], prep=copy("zp")),
        Row("BZPOPMAX", items("none", ARGS) + ["tmp", 1], prep=copy("zp")),
        Row("ZRANDMEMBER z 20000"), Row("ZRANDMEMBER z 60000"), Row("ZRANDMEMBER z -100000"),
        Row("ZRANDMEMBER z -100000 WITHSCORES"), Row("ZRANDMEMBER zp -100000"), Row("ZRANDMEMBER zp 100", times=20),
        Row("ZSCAN z 0 COUNT 100000"), Row("ZSCAN z 0 MATCH *77* COUNT 1000000"), Row("ZINTERCARD 2 z z2"),
        Row("ZINTERCARD 2 z z2 LIMIT 30000"),
        Row("ZINTER 2 zp zp2", times=20), Row("ZUNION 2 zp zp2", times=20), Row("ZDIFF 2 zp zp2", times=20),
        Row("ZUNIONSTORE tmp 2 z z2 WEIGHTS 2 3 AGGREGATE MAX"),
        Row("ZINTER 200", every, prep=use), Row("ZUNION 200", every, prep=use), Row("ZDIFF 200", every, prep=use),
        Row("ZUNIONSTORE tmp 200", every, prep=use), Row("ZUNION 2 set set2"), Row("ZINTER 2 z set3"),
    ]
    for op in ("ZINTER", "ZUNION", "ZDIFF"):
        for two in ("z z2", "z z3", "z3 z"):
            rows += [Row(f"{op} 2 {two}"), Row(f"{op}STORE tmp 2 {two}")]
    return rows


def geos():
    near = "FROMLONLAT 0 45"
    return [
        Row("GEOADD tmp", points(5000), prep="DEL tmp"), Row("GEOHASH geo", [b"p:%08d" % i for i in range(ARGS)]),
        Row("GEOPOS geo", [b"p:%08d" % i for i in range(ARGS)]),
        Row("GEODIST geo p:00000001 p:00077777", times=100), Row(f"GEOSEARCH geo {near} BYRADIUS 1000 km"),
        Row(f"GEOSEARCH geo {near} BYRADIUS 1000 km ASC WITHDIST WITHCOORD WITHHASH"),
        Row(f"GEOSEARCH geo {near} BYRADIUS 1000 km ASC COUNT 10"),
        Row(f"GEOSEARCH geo {near} BYRADIUS 1000 km COUNT 1000 ANY"), Row(f"GEOSEARCH geo {near} BYBOX 1500 1500 km DESC"),
        Row("GEOSEARCH geo FROMMEMBER p:00000001 BYBOX 500 500 km"), Row(f"GEOSEARCHSTORE tmp geo {near} BYRADIUS 1000 km"),
        Row(f"GEOSEARCHSTORE tmp geo {near} BYRADIUS 1000 km STOREDIST"),
        Row("GEORADIUS geo 0 45 1000 km WITHDIST ASC"), Row("GEORADIUS_RO geo 0 45 1000 km"),
        Row("GEORADIUS geo 0 45 1000 km STORE tmp"), Row("GEORADIUSBYMEMBER geo p:00000001 500 km"),
        Row("GEORADIUSBYMEMBER_RO geo p:00000001 500 km DESC"),
    ]


def streams():
    all_x = numbered("xs", 1000)
    use = [["use", "xs"]]
    return [
        Row("XADD tmp *", pairs(items("f", 5000), items("v", 5000)), prep="DEL tmp"),
        Row("XADD tmp MAXLEN 10 *", ["f", "v"], prep=copy("x")), Row("XADD tmp *", ["f", RANDOM[:1 << 20]], prep="DEL tmp"),
        Row("XLEN x", times=100), Row("XRANGE x - +"), Row("XREVRANGE x + -"), Row("XRANGE x 50000 50010", times=50),
        Row("XRANGE x 50000 + COUNT 1000"), Row("XREVRANGE x + - COUNT 1000"),
        Row("XREAD COUNT 100000 STREAMS x 0"), Row("XREAD COUNT 10 STREAMS", all_x + [b"0"] * 1000, prep=use),
        Row("XDEL tmp", ids(ARGS), prep=copy("x")), Row("XTRIM tmp MAXLEN 100", prep=copy("x")),
        Row("XTRIM tmp MAXLEN ~ 1000 LIMIT 0", prep=copy("x")), Row("XTRIM tmp MINID 100000", prep=copy("x")),
        Row("XSETID tmp 900000-1", prep=copy("x")), Row("XINFO STREAM x", times=50),
        Row("XINFO STREAM xg FULL COUNT 0"), Row("XINFO GROUPS xg", times=50), Row("XINFO CONSUMERS xg g", times=50),
        Row("XACK tmp g", ids(ARGS), prep=copy("xg")), Row("XPENDING xg g", times=20),
        Row("XPENDING xg g - + 100000"), Row("XPENDING xg g IDLE 1000000 - + 100000"), Row("XPENDING xg g - + 100000 two"),
        Row("XPENDING xg g 25000 + 10", times=50), Row("XCLAIM tmp g three 0", ids(ARGS), prep=copy("xg")),
        Row("XCLAIM tmp g three 0", ids(ARGS) + ["JUSTID"], prep=copy("xg")),
        Row("XAUTOCLAIM tmp g three 0 0 COUNT 100000", prep=copy("xg")),
        Row("XAUTOCLAIM tmp g three 0 0 COUNT 100000 JUSTID", prep=copy("xg")),
        Row("XAUTOCLAIM tmp g three 10000000 0 COUNT 10000", prep=copy("xg")),
        Row("XREADGROUP GROUP g2 one COUNT 50000 STREAMS tmp >", prep=copy("xg")),
        Row("XREADGROUP GROUP g2 one COUNT 50000 NOACK STREAMS tmp >", prep=copy("xg")),
        Row("XREADGROUP GROUP g one COUNT 50000 STREAMS tmp 0", prep=copy("xg")),
        Row("XGROUP CREATE tmp new 5", prep=copy("xg")), Row("XGROUP CREATE tmp new 25000 ENTRIESREAD 100", prep=copy("xg")),
        Row("XGROUP CREATECONSUMER tmp g new", prep=copy("xg")), Row("XGROUP DELCONSUMER tmp g one", prep=copy("xg")),
        Row("XGROUP DESTROY tmp g", prep=copy("xg")), Row("XGROUP SETID tmp g 0", prep=copy("xg")),
    ]


def generic():
    some = items("s", ARGS)
    filled = list(chunks("MSET", pairs(items("tmp", ARGS), items("v", ARGS))))
    expiring = filled
    rows = [
        Row("KEYS *", db=1, prep=[["use", "million"]]), Row("KEYS key:77*", db=1, prep=[["use", "million"]]),
        Row("KEYS *777*", db=1, prep=[["use", "million"]]), Row("KEYS key:777777", db=1, prep=[["use", "million"]], times=5),
        Row("SCAN 0 COUNT 100000", db=1, prep=[["use", "million"]]),
        Row("SCAN 0 COUNT 1000000 MATCH *77*", db=1, prep=[["use", "million"]]),
        Row("SCAN 0 COUNT 1000000 TYPE list", db=1, prep=[["use", "million"]]),
        Row("RANDOMKEY", db=1, prep=[["use", "million"]], times=100),
        Row("RANDOMKEY", db=2, prep=[["use", "sparse"]], once=True, title="RANDOMKEY (all run out)"),
        Row("DBSIZE", db=1, times=100),
        Row("DEL", items("tmp", ARGS), prep=filled), Row("UNLINK", items("tmp", ARGS), prep=filled),
        Row("EXISTS", some, prep=[["use", "s"]]), Row("TOUCH", some, prep=[["use", "s"]]),
        Row("TYPE set", times=100), Row("RENAME tmp tmp2", prep=[copy("set"), "DEL tmp2"]),
        Row("RENAME tmp tmp2", prep=[copy("set"), "COPY z tmp2 REPLACE"]),
        Row("RENAMENX tmp tmp2", prep=[copy("h"), "DEL tmp2"]),
        Row("MOVE tmp 3", prep=["SELECT 3", "DEL tmp", "SELECT 0", copy("h")]),
        Row("SWAPDB 1 4", prep=[["use", "million"]], title="SWAPDB 1 4, twice", many=[[b"SWAPDB", b"1", b"4"]] * 2),
        Row("FLUSHDB", db=5, prep="DEBUG POPULATE 200000 key 8"),
        Row("FLUSHDB ASYNC", db=5, prep="DEBUG POPULATE 200000 key 8"),
        Row("MEMORY USAGE noise", times=50),
        Row("SORT l BY nosort LIMIT 0 10"), Row("SORT l BY nosort LIMIT 50000 10"), Row("SORT l BY nosort DESC LIMIT 0 10"),
        Row("SORT z BY nosort LIMIT 0 10", times=10), Row("SORT z BY nosort DESC LIMIT 1000 10", times=10),
        Row("SORT z BY nosort LIMIT 75000 10"), Row("SORT set BY nosort LIMIT 0 10"), Row("SORT l BY nosort"),
        Row("SORT set BY nosort"), Row("SORT z BY nosort"), Row("SORT l BY nosort LIMIT 0 10 STORE tmp"),
        Row("SORT lint"), Row("SORT lint LIMIT 0 10"), Row("SORT lint LIMIT 0 50000 DESC"), Row("SORT l ALPHA"),
        Row("SORT l ALPHA LIMIT 0 10"), Row("SORT set ALPHA DESC"), Row("SORT iset"), Row("SORT lint STORE tmp"),
        Row("SORT_RO lint"), Row("SORT refs BY weights:*"), Row("SORT refs BY weights:* GET weights:* GET #"),
        Row("SORT refs BY nosort GET weights:*"), Row("SORT intset", times=5),
    ]
    for name in ("noise", "l", "lbig", "set", "iset", "h", "z", "x", "xg", "hp", "zp", "sp", "intset", "lp"):
        small = name.endswith("p") or name == "intset"
        times = 200 if small else 1
        rows += [
            Row(f"COPY {name} tmp REPLACE", times=times), Row(f"DUMP {name}", times=times),
            Row("RESTORE tmp 0", [dump(name), "REPLACE"], title=f"RESTORE tmp 0 (DUMP {name}) REPLACE", times=times),
            Row(f"MEMORY USAGE {name}", times=50), Row(f"MEMORY USAGE {name} SAMPLES 0"),
            Row(f"OBJECT ENCODING {name}", times=100),
        ]
        if not small:
            rows += [Row("DEL tmp", prep=copy(name), title=f"DEL (a copy of {name})"),
                     Row("UNLINK tmp", prep=copy(name), title=f"UNLINK (a copy of {name})")]
    for command, more in (("EXPIRE", "1000"), ("PEXPIRE", "1000000"), ("EXPIREAT", "99999999999"), ("PEXPIREAT", "99999999999999")):
        rows.append(Row(command, title=f"{command} of 10,000 keys", prep=expiring, many=[[command.encode(), k, more.encode()] for k in items("tmp", ARGS)]))
    for command in ("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "PERSIST"):
        rows.append(Row(command, title=f"{command} of 10,000 keys", prep=expiring + [[b"PEXPIRE", k, b"1000000"] for k in items("tmp", ARGS)],
                        many=[[command.encode(), k] for k in items("tmp", ARGS)]))
    return rows


def others():
    pub = numbered("channel", ARGS)
    patterns = [b"pattern:%d:*" % i for i in range(ARGS)]
    gets = [[b"GET", k] for k in items("s", ARGS)]
    lua = b"local t = {}\n" + b"".join(b"t[%d] = KEYS[%d] or 'none'\n" % (i, i) for i in range(1, 5001)) + b"return #t"
    mset = [b"COMMAND", b"GETKEYS", b"MSET"] + pairs(items("s", ARGS), items("v", ARGS))
    acl = [b"~key:%d:*" % i for i in range(2000)] + [b"+get", b"+set", b"-del", b"+@read"] * 100 + [b">secret%d" % i for i in range(20)]
    user = [[b"ACL", b"SETUSER", b"large", b"reset"] + acl]
    subscribed = [[b"SUBSCRIBE"] + pub, [b"PSUBSCRIBE"] + patterns, [b"SSUBSCRIBE"] + pub]
    none = [b"UNSUBSCRIBE"], [b"PUNSUBSCRIBE"], [b"SUNSUBSCRIBE"]
    none = [list(n) for n in none]
    tagged = pairs([b"{tag}:%d" % i for i in range(ARGS)], [b"v"] * ARGS)
    fill_slow = ["CONFIG SET slowlog-log-slower-than 0", "MGET s:00000001 s:00000002", [b"MGET"] + items("s", 1000), "CONFIG SET slowlog-log-slower-than -1"]
    return [
        Row("ECHO", [RANDOM]), Row("PING", [RANDOM]), Row("AUTH default", [RANDOM[:1000]], times=10),
        Row("HELLO 3 SETNAME", [b"n" * 100_000], resp3=True), Row("CLIENT SETNAME", [b"n" * 100_000], resp3=True),
        Row("CLIENT GETNAME", resp3=True, prep=[[b"CLIENT", b"SETNAME", b"n" * 100_000]]),
        Row("CLIENT SETINFO LIB-NAME", [b"n" * 100_000], resp3=True),
        Row("CLIENT LIST", times=20), Row("CLIENT LIST ID", list(range(1, ARGS))), Row("CLIENT INFO", times=50),
        Row("CLIENT TRACKING ON BCAST", [x for i in range(300) for x in (b"PREFIX", b"prefix:%08d" % i)], prep=["CLIENT TRACKING OFF"], resp3=True),
        Row("CLIENT TRACKINGINFO", prep=["CLIENT TRACKING OFF", [b"CLIENT", b"TRACKING", b"ON", b"BCAST"] + [x for i in range(300) for x in (b"PREFIX", b"prefix:%08d" % i)]], resp3=True),
        Row("CLIENT TRACKING OFF", resp3=True, prep=["CLIENT TRACKING OFF", "CLIENT TRACKING ON", [b"MGET"] + items("s", ARGS)]),
        Row("WATCH", items("s", ARGS), prep=["UNWATCH", ["use", "s"]]), Row("UNWATCH", prep=[[b"WATCH"] + items("s", ARGS)]),
        Row("EXEC", title="EXEC of 10,000 GETs", prep=[["use", "s"]], many=[[b"MULTI"]] + gets + [[b"EXEC"]]),
        Row("DISCARD", title="DISCARD of 10,000 GETs", many=[[b"MULTI"]] + gets + [[b"DISCARD"]]),
        Row("EVAL", [b"return #KEYS", ARGS] + items("s", ARGS)), Row("EVAL_RO", [b"return #ARGV", 0] + items("s", ARGS)),
        Row("EVALSHA", [b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0] + items("s", ARGS), title="EVALSHA (unknown) ... 10,000", times=2),
        Row("EVALSHA_RO", [b"cb5b9d8c4f3ad0ee7b2c3c8f5ee1f8b1f0d3a7aa", 0] + items("s", ARGS), title="EVALSHA_RO (unknown) ... 10,000", times=2),
        Row("EVAL", [b"for i = 1, #KEYS do redis.call('GET', KEYS[i]) end", ARGS] + items("s", ARGS), prep=[["use", "s"]], title="EVAL of a GET of each of 10,000 KEYS"),
        Row("EVAL", [b"return redis.call('MGET', unpack(KEYS))", 5000] + items("s", 5000), prep=[["use", "s"]], title="EVAL of an MGET of 5,000 KEYS"),
        Row("EVAL", [b"return redis.call('SMEMBERS', KEYS[1])", 1, "set"], title="EVAL of SMEMBERS set", prep=[["use", "set"]]),
        Row("EVAL", [b"return #redis.call('GET', KEYS[1])", 1, "noise"], title="EVAL of GET noise", prep=[["use", "noise"]]),
        Row("SCRIPT LOAD", [lua], prep=["SCRIPT FLUSH"]), Row("SCRIPT EXISTS", [b"%040d" % i for i in range(ARGS)]),
        Row("SCRIPT FLUSH", prep=[[b"SCRIPT", b"LOAD", b"return %d" % i] for i in range(1000)]),
        Row("FUNCTION LOAD REPLACE", [library(b"large", 2000)]), Row("FUNCTION LIST WITHCODE", prep=[["use", "libs"]]),
        Row("FUNCTION DUMP", prep=[["use", "libs"]]),
        Row("FUNCTION RESTORE", [("function dump", ""), "REPLACE"], prep=[["use", "libs"]]),
        Row("FUNCTION DELETE large", prep=[[b"FUNCTION", b"LOAD", b"REPLACE", library(b"large", 2000)]]),
        Row("FUNCTION STATS", prep=[["use", "libs"]], times=20),
        Row("FUNCTION FLUSH", prep=[[b"FUNCTION", b"LOAD", b"REPLACE", library(b"libs%d" % i)] for i in range(100)]),
        Row("FCALL f_0", [ARGS] + items("s", ARGS), prep=[[b"FUNCTION", b"LOAD", b"REPLACE", library(b"f", 1)]]),
        Row("FCALL_RO f_0", [ARGS] + items("s", ARGS), prep=[[b"FUNCTION", b"LOAD", b"REPLACE", b"#!lua name=f\nredis.register_function{function_name='f_0', callback=function(keys) return #keys end, flags={'no-writes'}}"]]),
        Row("PUBLISH channel:1", [RANDOM]), Row("SPUBLISH channel:1", [RANDOM]),
        Row("PUBLISH pattern:1:x", [b"message"], title="PUBLISH with 10,000 patterns there", resp3=True, prep=[[b"PSUBSCRIBE"] + patterns], times=5),
        Row("SUBSCRIBE", pub, resp3=True, prep=none), Row("PSUBSCRIBE", patterns, resp3=True, prep=none),
        Row("SSUBSCRIBE", pub, resp3=True, prep=none), Row("UNSUBSCRIBE", resp3=True, prep=subscribed),
        Row("PUNSUBSCRIBE", resp3=True, prep=subscribed), Row("SUNSUBSCRIBE", resp3=True, prep=subscribed),
        Row("PUBSUB CHANNELS", resp3=True, prep=subscribed), Row("PUBSUB CHANNELS *77*", resp3=True, prep=subscribed),
        Row("PUBSUB NUMSUB", pub, resp3=True, prep=subscribed), Row("PUBSUB SHARDCHANNELS", resp3=True, prep=subscribed),
        Row("PUBSUB SHARDNUMSUB", pub, resp3=True, prep=subscribed),
        Row("PUBSUB NUMPAT", resp3=True, prep=subscribed, times=50), Row("RESET", resp3=True, prep=subscribed),
        Row("COMMAND"), Row("COMMAND DOCS"), Row("COMMAND INFO"), Row("COMMAND INFO", [b"GET", b"SORT"] * 1000),
        Row("COMMAND LIST"), Row("COMMAND LIST FILTERBY PATTERN *s*"), Row("COMMAND LIST FILTERBY ACLCAT write"),
        Row("COMMAND GETKEYS", mset[2:]), Row("COMMAND GETKEYSANDFLAGS", mset[2:]), Row("COMMAND COUNT", times=50),
        Row("CONFIG GET *"), Row("CONFIG GET", [b"max*", b"*log*", b"save", b"port"] * 500),
        Row("CONFIG SET", ["maxmemory-policy", "noeviction", "hz", "10", "save", "", "client-output-buffer-limit", "normal 0 0 0"]),
        Row("CONFIG RESETSTAT", times=5),
        Row("ACL SETUSER large reset", acl), Row("ACL GETUSER large", prep=user), Row("ACL LIST", prep=user),
        Row("ACL USERS", prep=[[b"ACL", b"SETUSER", b"user:%d" % i] for i in range(2000)]),
        Row("ACL DELUSER", [b"user:%d" % i for i in range(2000)], prep=[[b"ACL", b"SETUSER", b"user:%d" % i] for i in range(2000)]),
        Row("ACL CAT", times=20), Row("ACL CAT read", times=5), Row("ACL DRYRUN large MGET", [b"key:1:x"] * ARGS, prep=user),
        Row("ACL LOG", prep=["ACL DRYRUN large GET none"]), Row("ACL GENPASS 4096", times=5),
        Row("INFO", times=5), Row("INFO everything", times=5), Row("INFO", [b"server", b"all", b"memory"] * 100),
        Row("SLOWLOG GET -1", prep=[["use", "s"]] + fill_slow * 60, times=5), Row("SLOWLOG RESET", prep=fill_slow),
        Row("SLOWLOG LEN", times=50), Row("LATENCY HISTOGRAM", times=5),
        Row("LATENCY HISTOGRAM", [b"get", b"set", b"mget"] * 1000),
        Row("LATENCY RESET", [b"event%d" % i for i in range(ARGS)]),
        Row("MEMORY STATS", times=20), Row("MEMORY DOCTOR", times=5), Row("MEMORY MALLOC-STATS", times=2),
        Row("SAVE", once=True),
        Row("MIGRATE", title="MIGRATE of 10,000 keys", args=[("sink", ""), "", "0", "10000", "REPLACE", "KEYS"] + items("tmp", ARGS), prep=list(chunks("MSET", pairs(items("tmp", ARGS), items("v", ARGS))))),
        Row("MIGRATE", title="MIGRATE of a copy of h", args=[("sink", ""), "tmp", "0", "10000", "REPLACE"], prep=copy("h")),
        Row("PFSELFTEST", once=True),
        Row("CLUSTER ADDSLOTS", list(range(0, 16384, 2)), cluster=True, prep=["CLUSTER FLUSHSLOTS"]),
        Row("CLUSTER DELSLOTS", list(range(0, 16384, 2)), cluster=True, prep=["CLUSTER FLUSHSLOTS", "CLUSTER ADDSLOTSRANGE 0 16383"]),
        Row("CLUSTER ADDSLOTSRANGE", [x for i in range(0, 16384, 2) for x in (i, i)], cluster=True, prep=["CLUSTER FLUSHSLOTS"]),
        Row("CLUSTER DELSLOTSRANGE", [x for i in range(0, 16384, 2) for x in (i, i)], cluster=True, prep=["CLUSTER FLUSHSLOTS", "CLUSTER ADDSLOTSRANGE 0 16383"]),
        Row("CLUSTER SLOTS", cluster=True, prep=["CLUSTER FLUSHSLOTS", [b"CLUSTER", b"ADDSLOTS"] + [b"%d" % i for i in range(0, 16384, 2)]]),
        Row("CLUSTER SHARDS", cluster=True), Row("CLUSTER NODES", cluster=True), Row("CLUSTER INFO", cluster=True),
        Row("CLUSTER FLUSHSLOTS", cluster=True, prep=["CLUSTER FLUSHSLOTS", "CLUSTER ADDSLOTSRANGE 0 16383"]),
        Row("CLUSTER KEYSLOT", [RANDOM[:1 << 20]], cluster=True),
        Row("MSET", tagged, cluster=True, title="MSET of 10,000 in cluster mode"),
        Row("MGET", tagged[::2], cluster=True, title="MGET of 10,000 in cluster mode"),
        Row("DEL", tagged[::2], prep=[[b"MSET"] + tagged], cluster=True, title="DEL of 10,000 in cluster mode"),
        Row("CLUSTER COUNTKEYSINSLOT 8338", cluster=True, times=50, prep=[[b"MSET"] + tagged]),
        Row("CLUSTER GETKEYSINSLOT 8338 10000", cluster=True, prep=[[b"MSET"] + tagged]),
        Row("FLUSHALL", once=True, title="FLUSHALL of all of this"),
        Row("FLUSHALL ASYNC", prep=["SELECT 1", "DEBUG POPULATE 200000 key 8", "SELECT 0"]),
    ]


def rows():
    return strings() + bits() + hlls() + lists() + sets() + hashes() + zsets() + geos() + streams() + generic() + others()


# Commands without a row: what they take cannot be large, or what they do is not this benchmark's.
NOT_LARGE = {
    "a number is all there is": "incr incrby incrbyfloat decr decrby hincrby hincrbyfloat",
    "a word or two, no value": """asking auth lastsave time readonly readwrite role select quit monitor multi lolwut acl|whoami acl|help
        client|id client|getredir client|help client|caching client|no-evict client|no-touch client|reply client|pause client|unpause
        client|durable client|unblock command|help config|help doctor function|help function|kill latency|doctor latency|graph latency|help latency|history
        latency|latest memory|help memory|purge object|freq object|help object|idletime object|refcount pubsub|help script|debug
        script|help script|kill slowlog|help xgroup|help xinfo|help wait waitaof""",
    "ends a connection or the server": "client|kill shutdown",
    "files and children: their time is the disk's": "acl|load acl|save bgrewriteaof bgsave config|rewrite",
    "replication's own": "failover psync replconf replicaof slaveof sync",
    "RESTORE under another name": "restore-asking",
    "for debugging": "debug pfdebug pfselftest",
    "one node or slot each": """cluster|bumpepoch cluster|count-failure-reports cluster|doctor cluster|failover cluster|forget cluster|help cluster|links
        cluster|meet cluster|myid cluster|myshardid cluster|replicas cluster|replicate cluster|reset cluster|saveconfig
        cluster|set-config-epoch cluster|setslot cluster|slaves cluster|slot-stats""",
    "moves of whole slots, which tests time": "cluster|cancelslotmigrations cluster|getslotmigrations cluster|migrateslots cluster|migration cluster|syncslots trimslots",
    "the reference does not have it": "cluster|flushslot",
    "modules are not there": "module module|help module|list module|load module|loadex module|unload",
    "a container of others": "acl client cluster config function latency memory object pubsub script slowlog xgroup xinfo",
}
