"""Bets and weights of the e-processes, as hexadecimal literals: the same bits on every machine (STATISTICS, replay to the bit)."""


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


F1_P = _floats(
    """
        0x1.02aaaaaaaaaabp-1 0x1.0800000000000p-1 0x1.0d55555555555p-1 0x1.12aaaaaaaaaabp-1
        0x1.1800000000000p-1 0x1.1d55555555555p-1 0x1.22aaaaaaaaaabp-1 0x1.2800000000000p-1
        0x1.2d55555555555p-1 0x1.32aaaaaaaaaabp-1 0x1.3800000000000p-1 0x1.3d55555555555p-1
        0x1.42aaaaaaaaaabp-1 0x1.4800000000000p-1 0x1.4d55555555555p-1 0x1.52aaaaaaaaaabp-1
        0x1.5800000000000p-1 0x1.5d55555555555p-1 0x1.62aaaaaaaaaabp-1 0x1.6800000000000p-1
        0x1.6d55555555555p-1 0x1.72aaaaaaaaaabp-1 0x1.7800000000000p-1 0x1.7d55555555555p-1
        0x1.82aaaaaaaaaaap-1 0x1.8800000000000p-1 0x1.8d55555555556p-1 0x1.92aaaaaaaaaaap-1
        0x1.9800000000000p-1 0x1.9d55555555556p-1 0x1.a2aaaaaaaaaaap-1 0x1.a800000000000p-1
        0x1.ad55555555556p-1 0x1.b2aaaaaaaaaaap-1 0x1.b800000000000p-1 0x1.bd55555555556p-1
        0x1.c2aaaaaaaaaaap-1 0x1.c800000000000p-1 0x1.cd55555555556p-1 0x1.d2aaaaaaaaaaap-1
        0x1.d800000000000p-1 0x1.dd55555555556p-1 0x1.e2aaaaaaaaaaap-1 0x1.e800000000000p-1
        0x1.ed55555555556p-1 0x1.f2aaaaaaaaaaap-1 0x1.f800000000000p-1 0x1.fd55555555556p-1
    """
)
"""F1: 48 midpoints of (1/2, 1)."""

F1_W = _floats(
    """
        0x1.cdbfd8e59dc0ep-5 0x1.cbbfa077a351fp-5 0x1.c7c4834e5d516p-5 0x1.c1d91710f76bdp-5
        0x1.ba0d1015f7125p-5 0x1.b0750d053aa05p-5 0x1.a52a520522419p-5 0x1.984a744b91bdcp-5
        0x1.89f6f71e6652dp-5 0x1.7a54db7fbd40ep-5 0x1.698c23f08fb32p-5 0x1.57c74ddf48653p-5
        0x1.4532c27f9fdbbp-5 0x1.31fc40ecce586p-5 0x1.1e5243968fecdp-5 0x1.0a63631420661p-5
        0x1.ecbb711b966a4p-6 0x1.c4dc83fb003e9p-6 0x1.9d80952143137p-6 0x1.76f9b2f10b26fp-6
        0x1.519452e6f23eep-6 0x1.2d96569a18fe5p-6 0x1.0b3e2b033b494p-6 0x1.d5840c5813355p-7
        0x1.989e8e423e24cp-7 0x1.6013f74e8f9f7p-7 0x1.2c191d902e606p-7 0x1.f99e8b24af887p-8
        0x1.a48862304a869p-8 0x1.58e516a68878ap-8 0x1.16856768340c6p-8 0x1.ba2f9b0f26bd1p-9
        0x1.58570a581ae70p-9 0x1.0668892f53d9cp-9 0x1.863a4ebc6fd9dp-10 0x1.1a12c5a025540p-10
        0x1.8a9f78aab5329p-11 0x1.09931d57d9b3dp-11 0x1.554d2bec1b8c7p-12 0x1.9e9387be13feep-13
        0x1.d560a169663d7p-14 0x1.e58660a230994p-15 0x1.bd43243ab1ebcp-16 0x1.58f37e2415bd2p-17
        0x1.9eaa7eebbd61bp-19 0x1.457001b977701p-21 0x1.ab0445fe961f2p-25 0x1.da2c28bc0e06ep-33
    """
)
"""F1: weights, proportional to (p(1-p))^5, summing to 1."""

F2_MARGIN = _floats(
    """
        0x1.47ae147ae147bp-4 0x1.7aa931424521bp-4 0x1.b592d0a1a391ep-4 0x1.f9a6db72fad35p-4
        0x1.2429306fd7fb7p-3 0x1.519d9df9a6fa7p-3 0x1.862474df10698p-3 0x1.c2d75fb502eb1p-3
        0x1.047dedc0c2d3bp-2 0x1.2d05048e96d8ep-2 0x1.5bda471086f83p-2 0x1.91f8d7d04ceadp-2
        0x1.d082ebc0d1638p-2 0x1.0c63ef3744c23p-1 0x1.36259c2682985p-1 0x1.6666666666667p-1
    """
)
"""F2 with a margin: 16 geometric points 0.08 to 0.7, to be divided by (1 - d)."""

F2_ZERO = _floats(
    """
        0x1.999999999999ap-5 0x1.f0a4be592153ap-5 0x1.2d179fa15145cp-4 0x1.6d13b52efc8f3p-4
        0x1.baa8b373468d8p-4 0x1.0c5d29c7c2a08p-3 0x1.4564c09bbcdf4p-3 0x1.8a8ae14affe7cp-3
        0x1.de62dcc5ccf2dp-3 0x1.2206101eb0387p-2 0x1.5fa7fdba09d26p-2 0x1.aa62dd6e1150fp-2
        0x1.027f9b6f8b16cp-1 0x1.396e7e71bff33p-1 0x1.7c09dd839445dp-1 0x1.ccccccccccccdp-1
    """
)
"""F2 without a margin: 16 geometric points 0.05 to 0.9."""

SR_WIDE = _floats(
    """
        0x1.999999999999ap-4 0x1.17018ff2abbdbp-3 0x1.7c1981b6bbf96p-3 0x1.02e952df62767p-2
        0x1.60b95544ad6a2p-2 0x1.e0872bbc54e68p-2 0x1.4751e79ec5e6bp-1 0x1.bdeb538036deap-1
        0x1.2fbede69c2183p+0 0x1.9dcd96ab98bbdp+0 0x1.19de7d8e70067p+1 0x1.8000000000000p+1
    """
)
"""SR e-detector, p0 at most 0.1: 12 geometric points 0.1 to 3."""

SR_NARROW = _floats(
    """
        0x1.999999999999ap-4 0x1.f4290d3532722p-4 0x1.315f1eae12bdfp-3 0x1.74e337f1bdf18p-3
        0x1.c754bd0f35e9ap-3 0x1.160049a998b03p-2 0x1.537736a9c3da0p-2 0x1.9e850bfb5389cp-2
        0x1.fa2af48f6d87ap-2 0x1.350a1534151c0p-1 0x1.795dc7fb88051p-1 0x1.ccccccccccccdp-1
    """
)
"""SR e-detector, p0 above 0.1: 12 geometric points 0.1 to 0.9."""
