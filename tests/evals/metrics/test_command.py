import shlex
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metrics.command import canonical_command, parses, score_command
from evals.metrics.command_options import PROGRAMS
from evals.metrics.score import Reply
from tests.evals.metrics.questions import question_of


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # how it stands in an answer
        ("$ ls", "ls"),
        ("```bash\nls -l\n```", "ls -l"),
        ("```\n$ ls -l\n```\n", "ls -l"),
        ("`ls`", "ls"),
        ("ls;", "ls"),
        ("ls # all files", "ls"),
        ("ls \\\n  -l", "ls -l"),
        ("a\nb", "a; b"),
        ("a|b&&c", "a | b  && c"),
        ("ls >x", "ls > x"),
        # quotes
        ("grep 'a' x", 'grep "a" x'),
        ("grep a x", "grep 'a' \"x\""),
        ("a b\\ c", "a 'b c'"),
        ("a b'c'\"d\"", "a bcd"),
        ("a \"it's\"", "a it\\'s"),
        ('a "\\$x \\" \\\\"', "a '$x \" \\'"),
        ("a \"\\n\"", "a '\\n'"),
        ("a $'b'", "a b"),
        ("find . -exec rm {} \\;", "find . -exec rm '{}' ';'"),
        ("find . \\! -name a", "find . ! -name a"),
        ("find . -name \\*.py", 'find . -name "*.py"'),
        # expansions
        ("echo ${x}", "echo $x"),
        ("echo `date`", "echo $(date)"),
        ('echo "$(ls -a -l)"', 'echo "`ls -la`"'),
        ("diff <(ls -al) x", "diff <( ls -l -a ) x"),
        # options
        ("ls -la", "ls -a -l"),
        ("ls -la", "ls -al"),
        ("ls -l dir", "ls dir -l"),
        ("head -n5 x", "head x -n 5"),
        ("head -5 x", "head -n 5 x"),
        ("head --lines=5", "head --lines 5"),
        ("sort -k2 -n f", "sort -n -k 2 f"),
        ("cut -d' ' -f1", "cut -f 1 -d ' '"),
        ("grep -rn --include='*.py' foo .", "grep foo . -n -r --include '*.py'"),
        ("rm -- a", "rm a"),
        ("sudo rm -rf a", "sudo rm -fr a"),
        ("find . | xargs -0 grep -il x", "find . | xargs -0 grep -l -i x"),
        ("aws ec2 run-instances --count 1 --image-id i",
         "aws ec2 run-instances --image-id i --count=1"),
        ("aws s3 cp a b --recursive", "aws s3 cp --recursive a b"),
        ("if a; then ls -la; fi", "if a\nthen\n  ls -al\nfi"),
    ],
)  # fmt: skip
def test_spellings_of_one_command_are_equal(first: str, second: str) -> None:
    assert canonical_command(first) == canonical_command(second)
    assert parses(first)
    assert parses(second)
    assert score_command(Reply(first), question_of(second)).value == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # what the shell expands
        ("ls *", "ls '*'"), ("ls a?", "ls a\\?"), ("ls [ab]", "ls '[ab]'"), ("ls ~", "ls '~'"),
        ("echo $x", "echo '$x'"), ("echo $x", 'echo "$x"'), ("echo {a,b}", "echo '{a,b}'"),
        ("echo {1..3}", "echo '{1..3}'"), ("echo $10", "echo ${10}"), ("echo $(a)", "echo '$(a)'"),
        ("echo $(a)", 'echo "$(a)"'), ("echo $(a)", "echo <(a)"), ("cat <(a)", "cat >(a)"),
        ("echo ${x}", "echo ${x%y}"), ("echo $'a\\nb'", "echo 'a\\nb'"),
        ("[[ a =~ . ]]", "[[ a =~ '.' ]]"),
        ("cat <<E\n$a\nE", "cat <<'E'\n$a\nE"),
        # words
        ("echo a  b", "echo 'a  b'"), ("rm 'a b'", "rm a b"), ("echo a\\ b", "echo a b"),
        ("echo '' a", "echo a"), ("a 'x;y'", "a x;y"), ("a \\ b", "a b"), ("a | \\ b", "a | b"),
        ("echo \"a\\b\"", "echo ab"), ("ls", "LS"), ("ls\u00a0-l", "ls -l"), ("ls", "ls -l"),
        ("ls\u2003-l", "ls -l"), ("awk -F: -vFS=x p", "awk -vFS=x -F: p"),
        ("a '#b'", "a #b"),
        ("find . -exec rm {}\\;", "find . -exec rm {} \\;"), ("x=1 a", "a x=1"),
        # order
        ("cp a b", "cp b a"), ("a | b", "b | a"), ("a && b", "b && a"), ("a; b", "b; a"),
        ("find . -name a -delete", "find . -delete -name a"), ("echo -n a", "echo a -n"),
        ("find . -type f -o -name a", "find . -name a -o -type f"),
        ("ls 2>&1 >a", "ls >a 2>&1"), ("diff -u a b", "diff -u b a"),
        ("head 5 -n f", "head -n 5 f"),
        ("foo -a x -b y", "foo -b y -a x"), ("git log -n 1 -p", "git log -p -n 1"),
        ("xargs -n 1 rm -f", "xargs -f -n 1 rm"), ("aws s3 cp a b", "aws s3 cp b a"),
        ("ssh -v host ls", "ssh host ls -v"), ("sudo -u a b", "sudo b -u a"),
        # operators
        ("a && b", "a || b"), ("a && b", "a; b"), ("a &", "a"), ("a | b", "a |& b"),
        ("ls > a", "ls >> a"), ("ls > a", "ls < a"), ("ls 2> a", "ls > a"), ("(a; b)", "{ a; b; }"),
        ("a | b > c", "{ a; b; } > c"), ("! a", "a"),
        ("for ((;;i++)); do a; done", "for ((i++;;)); do a; done"),
        ("case a in a) b;; esac", "case a in a) b;& esac"),
        ("while a; do b; done", "until a; do b; done"),
        # options
        ("rm -if x", "rm -fi x"), ("ls -lt", "ls -lS"), ("ls -tS", "ls -St"),
        ("grep -r a", "grep -R a"),
        ("grep --color a", "grep --color=a"), ("foo -ab", "foo -a -b"), ("foo --a=b", "foo --a b"),
        ("sed -ni p f", "sed -in p f"), ("ls --sort=time", "ls --sort=size"),
        ("tail +5 f", "tail -5 f"), ("tail -n 5", "tail -n +5"),
        ("grep -e a -f b", "grep -f b -e a"),
        ("sort -k1 -k2", "sort -k2 -k1"), ("rm -- -f", "rm -f"), ("ls -- *", "ls *"),
        ("basename -- $0", "basename $0"),
        ("aws s3 sync a b --exclude '*' --include x", "aws s3 sync a b --include x --exclude '*'"),
        ("aws a b --x 1 --y 2", "aws a b --x 2 --y 1"), ("aws a b --x 1 2", "aws a b --x 2 1"),
        # what does not parse
        ("find '", "find \""), ("(ls 'a  b'", "(ls 'a b'"), ("(ls '*'", "(ls *"),
    ],
)  # fmt: skip
def test_other_commands_are_not_equal(first: str, second: str) -> None:
    assert canonical_command(first) != canonical_command(second)
    assert score_command(Reply(first), question_of(second)).value == 0


def test_words_that_do_not_parse_are_compared_by_words() -> None:
    assert not parses("find ( -name a")
    assert not parses("ls " + "a " * 5_000)
    assert canonical_command("find  ( -name a") == canonical_command("find ( -name a ")


def test_an_empty_answer_or_one_with_prose_is_not_the_command() -> None:
    for answer in ("", "```\n```", "Use `ls`.", "ls\n\nThis lists files.", "Use:\n```\nls\n```"):
        assert score_command(Reply(answer), question_of("ls")).value == 0


def test_the_label_is_the_command_alone() -> None:
    assert score_command(Reply("```sh\n$ ls  -l\n```"), question_of("x")).label == "ls  -l"


def test_control_characters_do_not_forge_forms() -> None:
    assert canonical_command("echo '\x02$\x03$x\x04'") != canonical_command("echo $x")


def test_the_tables_name_no_option_twice() -> None:
    for name, options in PROGRAMS.items():
        letters = options.short.replace(":", "")
        assert len(set(letters)) == len(letters), name
        known = set(letters) | {one.rstrip("=?") for one in options.long.split()}
        grouped = " ".join(options.ordered).split()
        assert set(grouped) <= known, name
        assert len(set(grouped)) == len(grouped), name


PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)


@given(st.lists(PLAIN, min_size=1, max_size=4))
def test_quotes_by_the_shell_module_are_undone(words: list[str]) -> None:
    line = " ".join(["run", *map(shlex.quote, words)])
    in_double = " ".join(
        ["run", *('"' + "".join(f"\\{c}" if c in '$`"\\' else c for c in w) + '"' for w in words)]
    )
    assert canonical_command(line) == canonical_command(in_double)
    changed = " ".join(["run", *map(shlex.quote, [*words[:-1], words[-1] + "x"])])
    assert canonical_command(line) != canonical_command(changed)


FLAGS = st.lists(st.sampled_from(["-n", "-r", "-u", "-b", "-k 2", "-t,", "--reverse"]), unique=True)


@given(FLAGS, st.randoms())
def test_options_of_sort_may_stand_in_any_order(flags: list[str], random: Random) -> None:
    shuffled = random.sample(flags, len(flags))
    first, second = f"sort {' '.join(flags)} a b", f"sort a {' '.join(shuffled)} b"
    assert canonical_command(first) == canonical_command(second)
    assert canonical_command(first) != canonical_command(f"sort {' '.join(flags)} b a")


@given(st.text(st.sampled_from("ab $\"'`\\(){}[]|&;<>*~-\n#=!"), max_size=40))
def test_any_text_equals_itself(text: str) -> None:
    assert canonical_command(text) == canonical_command(text + "\n")


@pytest.mark.parametrize(
    "text",
    ["(", "$(", "a=(", "`", "a && ", "a | ", "{a,", ",", "\\ ", "'", '"', "ls -l ", "${", "<<A "],
)
def test_very_long_answers_take_no_time(text: str) -> None:
    assert score_command(Reply(text * (100_000 // len(text))), question_of("ls")).value == 0
    assert score_command(Reply(text * (8_000 // len(text))), question_of("ls")).value == 0
