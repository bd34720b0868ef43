"""Which options the commonest programs take, so that their order can be told not to matter.

From the manuals of GNU's coreutils, findutils, grep, sed and diffutils. What a program is not
listed with leaves its words as they stand, so that a gap here never makes two commands equal.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Options(NamedTuple):
    """short: as getopt has it, `n:` with a value, `i::` with one that may be attached.

    long: names apart by blanks, `lines=` with a value, `color=?` with one that may be attached;
    ordered: names of options, short and long, of which a later one may override an earlier one;
    ends_at_operand: the first operand ends the options; runs: operands are another command.
    """

    short: str
    long: str = ""
    ordered: tuple[str, ...] = ()
    ends_at_operand: bool = False
    runs: bool = False


_GREP = Options(
    "EFGPe:f:ivwxcLlm:oqsbHhnTZzA:B:C:aIrRU",
    "ignore-case invert-match word-regexp line-regexp count only-matching quiet silent line-number "
    "null max-count= after-context= before-context= include= exclude= exclude-dir= color=?",
    (
        "E F G P",
        "H h",
        "L l c",
        "r R",
        "e f",
        "A B C after-context before-context",
        "a I U",
        "include exclude exclude-dir",
    ),
)

PROGRAMS: Mapping[str, Options] = {
    "ls": Options(
        "aAbBcCdFgGhHiI:klLmnNopqQrRsStT:uUvw:xX1",
        "inode reverse recursive sort= time= format= color=? group-directories-first",
        (
            "l C m x 1 g o n format",
            "t S U X v sort c u time",
            "a A",
            "b N q Q",
            "F p",
            "H L",
            "h k",
        ),
    ),
    "head": Options("c:n:qvz", "lines= bytes=", ("c n lines bytes", "q v")),
    "tail": Options(
        "c:fFn:qs:vz",
        "lines= bytes= pid= retry follow=?",
        ("c n lines bytes", "q v", "f F follow retry"),
    ),
    "sort": Options(
        "bdfghiMnRrVcCk:mo:sS:t:T:uz",
        "reverse numeric-sort unique key= field-separator= output=",
        ("k key", "c C", "t field-separator", "o output"),
    ),
    "uniq": Options("cdDf:is:uw:z", "count repeated unique ignore-case skip-fields="),
    "wc": Options("cmlLw", "bytes chars lines words max-line-length"),
    "cut": Options(
        "b:c:d:f:nsz",
        "delimiter= fields= characters= bytes= complement output-delimiter=",
        ("d delimiter", "b c f bytes characters fields"),
    ),
    "grep": _GREP,
    "egrep": _GREP,
    "fgrep": _GREP,
    "sed": Options(
        "nri::Ee:f:l:suz",
        "quiet silent regexp-extended in-place=? expression=",
        ("e f expression", "i in-place"),
    ),
    "awk": Options("F:v:f:", ordered=("F v",), ends_at_operand=True),
    "gawk": Options("F:v:f:", ordered=("F v",), ends_at_operand=True),
    "cat": Options("AbeEnstTuv", "number squeeze-blank show-all"),
    "tee": Options("aip", "append ignore-interrupts"),
    "comm": Options("123z"),
    "paste": Options("d:sz", "delimiters= serial", ("d delimiters",)),
    "tr": Options("cCdst", "delete complement squeeze-repeats", ends_at_operand=True),
    "split": Options("a:b:C:del:n:u", "lines= bytes= suffix-length=", ("b C l n lines bytes",)),
    "diff": Options(
        "abBcdiNpqrsuU:twW:yx:", "brief recursive side-by-side ignore-case exclude=", ("u U",)
    ),
    "rm": Options("dfiIrRv", "recursive force verbose", ("f i I force",)),
    "rmdir": Options("pv", "parents verbose"),
    "mkdir": Options("pm:v", "parents mode= verbose"),
    "cp": Options(
        "abdfiHlLnPpRrsS:t:Tuvx",
        "recursive archive force verbose parents target-directory=",
        ("f i n force", "H L P a d p archive", "l s"),
    ),
    "mv": Options(
        "bfinS:t:Tuv", "force verbose no-clobber target-directory=", ("f i n force no-clobber",)
    ),
    "ln": Options("bfiLnPrsS:t:Tv", "symbolic force verbose relative", ("f i force", "L P")),
    "touch": Options("acd:hmr:t:", "date= reference= no-create", ("d r t date reference",)),
    "du": Options(
        "abcd:hHkLlmPsSx0",
        "all total max-depth= summarize human-readable one-file-system exclude= apparent-size",
        ("h k m b human-readable", "H L P", "d s max-depth summarize"),
    ),
    "df": Options(
        "ahHiklPTt:x:",
        "human-readable inodes type= exclude-type= total",
        ("h H k human-readable", "P T"),
    ),
    "chmod": Options("Rvcf", "recursive verbose changes reference=", ("v c f verbose changes",)),
    "chown": Options(
        "RvcfhHLP", "recursive verbose changes reference=", ("H L P", "v c f verbose changes")
    ),
    "chgrp": Options(
        "RvcfhHLP", "recursive verbose changes reference=", ("H L P", "v c f verbose changes")
    ),
    "readlink": Options("efmnqsvz", ordered=("e f m", "q s v")),
    "basename": Options("as:z", ends_at_operand=True),
    "uname": Options("asnrvmpio"),
    "gzip": Options("cdfklNnrtv"),
    "gunzip": Options("cfklNnrtv"),
    "tar": Options("cxtruzjJvf:pkOh", "gzip bzip2 verbose file=", ("f file", "z j J gzip bzip2")),
    "xargs": Options(
        "0a:d:I:i::L:l::n:P:prs:tx",
        "null arg-file= delimiter= max-args= max-procs= replace=? no-run-if-empty verbose",
        ("I i L l n replace max-args", "0 d null delimiter"),
        ends_at_operand=True,
        runs=True,
    ),
    "sudo": Options("u:g:nEHb", ends_at_operand=True, runs=True),
    "nohup": Options("", ends_at_operand=True, runs=True),
    "aws s3": Options(
        "",
        "recursive dryrun quiet delete human-readable summarize only-show-errors no-progress "
        "size-only exact-timestamps force exclude= include= acl= storage-class= sse= region= "
        "profile= endpoint-url= output= content-type= cache-control= expires-in=",
        ("exclude include",),
    ),
}
