/* SPDX-License-Identifier: Apache-2.0 */
/* TOML taken apart (toml.c, toml_scan.c) and our blocks in it (block.c): what is read, what is
 * refused and where, and that taking a block out gives the text from before. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../src/runtime/block.h"
#include "../../src/runtime/toml.h"

static void *allocate(void *host, void *old, size_t bytes)
{
    (void)host;
    if (bytes != 0)
        return realloc(old, bytes);
    free(old);
    return NULL;
}
static const struct env env = {.alloc = allocate};
static struct pool pool;
static struct toml toml;
static struct runtime_error error;

static int set_up(void **state)
{
    (void)state;
    pool_init(&pool, &env);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pool_close(&pool);
    return 0;
}

static int parse(const char *text)
{
    return toml_parse(&pool, text, strlen(text), &toml, &error);
}

static void good(const char *text)
{
    if (parse(text) != 0)
        fail_msg("refused: %s: %s", text, error.text);
}

static void bad(const char *text, const char *message)
{
    assert_int_equal(parse(text), E_MALFORMED);
    if (strcmp(error.text, message) != 0)
        fail_msg("%s\nsays \"%s\", expected \"%s\"", text, error.text, message);
}

static void values_of_every_kind(void **state)
{
    (void)state;
    static const char *const values[] = {
        "\"\"",
        "\"a\\\"b\\\\ \\u00e9 \\U0001F41F\\n\"",
        "'C:\\x'",
        "''",
        "\"\"\"\"\"\"",
        "\"\"\"\na\n\n\\\n   b \\\"\"\" \"\"\"\"\"",
        "'''\n'a''\n'''",
        "''''a'''''",
        "0",
        "+1",
        "-17",
        "1_000",
        "0xDEAD_beef",
        "0o17",
        "0b10",
        "1.5",
        "-0.0",
        "1e10",
        "6.62e-34",
        "1_0.0_1E+1_0",
        "2000-02-29",
        "1996-02-29",
        "inf",
        "-inf",
        "nan",
        "true",
        "false",
        "1979-05-27",
        "1979-05-27T07:32:00Z",
        "1979-05-27 07:32:00.5-07:00",
        "07:32:00",
        "[]",
        "[ ]",
        "[1,2, ]",
        "[[1], ['a', \"b\"]]",
        "[\n 1, # one\n\n # two\n 2\n]",
        "{}",
        "{ a = 1, b.c = [{d = \"}\"}] }",
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        const char *text = pool_print(&pool, "k = %s # end\nl = 1\n", values[i]);
        good(text);
        assert_int_equal(toml.count, 2);
        assert_int_equal(toml.items[0].value_bytes, strlen(values[i]));
        assert_memory_equal(text + toml.items[0].value, values[i], strlen(values[i]));
    }
}

static void values_that_are_none(void **state)
{
    (void)state;
    static const char *const values[] = {
        "",
        "yes",
        "True",
        "01",
        "1__0",
        "_1",
        "1_",
        "1.",
        ".5",
        "0x",
        "0xg",
        "1e",
        "--1",
        "+",
        "5_E2",
        "1979-02-29",
        "1900-02-29",
        "1979-13-01",
        "1979-04-31",
        "24:00:00",
        "07:60:00",
        "07:00:60",
        "1979-05-27T07:32:00+24:00",
        "\"\"\"a\\\n\rb\"\"\"",
        "1979-5-27",
        "1979-05-27T",
        "07:32",
        "1979-05-27T07:32:00+0700",
        "1 2",
        "\"a",
        "'a\n'",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "\"\001\"",
        "\"\"\"a",
        "'''a",
        "[1 2]",
        "[,]",
        "[1,,2]",
        "[1",
        "{a}",
        "{a=1,}",
        "{a=1\n}",
        "{a=1 b=2}",
        "{,}",
        "}",
        "]",
        "\"a\" b",
        "\"\"\"a\"\"\"\"\"\"",
        "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]",
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        const char *text = pool_print(&pool, "k = %s\n", values[i]);
        if (parse(text) == 0)
            fail_msg("taken: %s", text);
        assert_true(error.text[0] == '1' || error.text[0] == '2' || error.text[0] == '3');
    }
}

static void paths_tables_and_places(void **state)
{
    (void)state;
    good("# head\r\n"
         "a.'b c'.\"d\\u0065\" = 1\r\n"
         "\r\n"
         "  [ plugins . \"x.y\" ] # here\r\n"
         "k = [\r\n1 ]\r\n"
         "[[r]]\r\nn = 1\r\n[[r.m]]\r\nn = 2\r\n[[r]]\r\nn = 1");
    assert_true(toml.crlf);
    assert_int_equal(toml.count, 10);
    const struct toml_item *key = &toml.items[1];
    assert_int_equal(key->parts, 3);
    assert_string_equal(toml_part(key, 1), "b c");
    assert_string_equal(toml_part(key, 2), "de");
    assert_string_equal(toml_part(key, 3), "");
    assert_int_equal(toml.items[0].kind, TOML_COMMENT);
    assert_int_equal(toml.items[2].line, 4);
    static const char *const table[] = {"plugins", "x.y", NULL};
    static const char *const inner[] = {"plugins", "x.y", "k", NULL};
    assert_true(toml_is(&toml.items[2], table));
    assert_true(toml_is(&toml.items[3], inner));
    assert_false(toml_is(&toml.items[3], table));
    assert_true(toml_below(&toml.items[3], table));
    assert_false(toml_below(&toml.items[0], table));
    assert_int_equal(toml.items[3].table, 2);
    assert_memory_equal(toml.text + toml.items[3].start, "k = [\r\n1 ]\r\n", 12);
    assert_int_equal(toml.items[3].end - toml.items[3].start, 12);
    assert_int_equal(toml.items[6].element, 4); /* [[r.m]] in the first [[r]] */
    assert_int_equal(toml.items[9].element, 8);
    assert_int_equal(toml.items[9].end, toml.bytes);
}

static void what_is_there_twice(void **state)
{
    (void)state;
    bad("a = 1\nb = 2\na = 3\n", "3: a key or table that is there already");
    bad("[a]\n[b]\n[a]\n", "3: a key or table that is there already");
    bad("[a]\nx = 1\nx.y = 2\n", "3: a key or table that is there already");
    bad("a.b = 1\n[a.b]\n", "2: a key or table that is there already");
    bad("a = 1\n[a.b.c]\n", "2: a key or table that is there already");
    bad("[[a]]\n[a]\n", "2: a key or table that is there already");
    bad("[a]\n[[a]]\n", "2: a key or table that is there already");
    bad("[[r]]\nx = 1\n[r.s]\n[r.s]\n", "4: a key or table that is there already");
    bad("\"a\" = 1\n'a' = 1\n", "2: a key or table that is there already");
    bad("[[a.b]]\n[[a]]\n", "2: a key or table that is there already");
    bad("[a.b]\n[[a]]\n", "2: a key or table that is there already");
    bad("[a]\nb.c = 1\n[a.b]\n", "3: a key or table that is there already");
    bad("a.b.c = 1\n[a]\n", "2: a key or table that is there already");
    bad("[a.b.c]\n[a]\nb.d = 1\n", "3: a key or table that is there already");
    bad("[a.b]\n[a]\nb.d = 1\n", "3: a key or table that is there already");
    good("[a]\nb.c = 1\n[a.b.d]\n");
    good("[a.b]\n[a]\nc = 1\n");
    good("[[r]]\nx = 1\n[r.s]\ny = 1\n[[r]]\nx = 1\n[r.s]\ny = 1\n");
    good("a.b = 1\na.c = 2\n");
}

static void broken_text_says_where(void **state)
{
    (void)state;
    bad("a = 1\n= 2\n", "2: no key where one should be");
    bad("a\n", "1: a key without '='");
    bad("a = 1 b = 2\n", "1: something behind the end of a statement");
    bad("[a\n", "1: a table's name without its end");
    bad("[[a]\n", "1: a table's name without its end");
    bad("[]\n", "1: no key where one should be");
    bad("[a] x\n", "1: something behind the end of a statement");
    bad("a = 1\rb = 2\n", "1: a carriage return without a line feed");
    bad("# \001\n", "1: a control byte in a comment");
    bad("\xef\xbb\xbf"
        "a = 1\n",
        "1: a byte order mark; save the file without it");
    bad("a = \"\xff\"\n", "1: the file is not UTF-8");
    bad("a = \"\xed\xa0\x80\"\n", "1: the file is not UTF-8");
    bad("a = \"\xc0\xaf\"\n", "1: the file is not UTF-8");
    bad("\"\"\"a\"\"\" = 1\n", "1: a key in three quotes");
    bad("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q = 1\n", "1: a key of too many parts");
    assert_int_equal(toml_parse(&pool, "a = 1\n\0b", 8, &toml, &error), E_MALFORMED);
    assert_string_equal(error.text, "1: a zero byte in the file");
}

static void too_many_lines(void **state)
{
    (void)state;
    struct text text;
    text_init(&text, &pool);
    for (int i = 0; i < TOML_ITEMS_MAX; i++)
        text_add_string(&text, "#\n");
    assert_int_equal(text_end(&text), 0);
    assert_int_equal(toml_parse(&pool, text.at, text.bytes, &toml, &error), 0);
    text_add_string(&text, "#\n");
    assert_int_equal(toml_parse(&pool, text.at, text.bytes, &toml, &error), E_TOO_LARGE);
    assert_string_equal(error.text, "8193: more lines than are read");
}

static void strings_are_decoded(void **state)
{
    (void)state;
    const char *one;
    const char *list[3];
    unsigned count;
    good("a = \"\"\"\nx\\\n  y\\t\\u00fc\"\"\"\nb = 'x\\y'\nc = 1\n"
         "d = [ 'p', # q\n \"q\", ]\ne = ['p', 1]\nf = []\n");
    assert_int_equal(toml_string(&pool, &toml, &toml.items[0], &one), 0);
    assert_string_equal(one, "xy\t\xc3\xbc");
    assert_int_equal(toml_string(&pool, &toml, &toml.items[1], &one), 0);
    assert_string_equal(one, "x\\y");
    assert_int_equal(toml_string(&pool, &toml, &toml.items[2], &one), E_INVALID);
    assert_int_equal(toml_strings(&pool, &toml, &toml.items[3], list, 3, &count), 0);
    assert_int_equal(count, 2);
    assert_string_equal(list[1], "q");
    assert_int_equal(toml_strings(&pool, &toml, &toml.items[3], list, 1, &count), E_TOO_LARGE);
    assert_int_equal(toml_strings(&pool, &toml, &toml.items[4], list, 3, &count), E_INVALID);
    assert_int_equal(toml_strings(&pool, &toml, &toml.items[5], list, 3, &count), 0);
    assert_int_equal(count, 0);
    assert_int_equal(toml_strings(&pool, &toml, &toml.items[2], list, 3, &count), E_INVALID);
}

static void quoted_strings_come_back(void **state)
{
    (void)state;
    static const char value[] = "a\"b\\c\td\x7f \xc3\xbc";
    struct text text;
    const char *back;
    text_init(&text, &pool);
    text_add_string(&text, "k = ");
    toml_quote(&text, value);
    assert_int_equal(text_end(&text), 0);
    good(text.at);
    assert_int_equal(toml_string(&pool, &toml, &toml.items[0], &back), 0);
    assert_string_equal(back, value);
}

/* ---- blocks ---- */

/* Puts lines in at the begin of `mark` ("": at the end), which gives way if `gone`. */
static int insert(const char *base, const char *mark, bool gone, const char *lines,
                  struct text *out)
{
    good(base);
    size_t at = mark[0] == '\0' ? strlen(base) : (size_t)(strstr(base, mark) - base);
    const struct block_edit edit = {at, gone ? at + strlen(mark) : at, lines};
    text_init(out, &pool);
    return block_insert(&pool, &toml, &edit, 1, out, &error);
}

static void blocks_come_out_again(void **state)
{
    (void)state;
    static const struct {
        const char *base, *mark;
        bool gone;
    } cases[] = {
        {"", "", false},
        {"a = 1\n", "", false},
        {"a = 1", "", false},          /* no line end */
        {"a = 1\r\nb = 2", "", false}, /* Windows, no line end */
        {"a = 1\r\n[b]\r\nc = 1\r\n", "[b]", false},
        {"# only this", "", false},
        {"\n\n  \n", "", false},
        {"[t]\nk = ''\nl = 1\n", "k = ''\n", true},
        {"[t]\nk = ''", "k = ''", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct text with;
        struct span without;
        unsigned blocks;
        const char *lines = cases[i].gone ? "k = 'v'\n" : "[x]\ny = 1\n";
        if (insert(cases[i].base, cases[i].mark, cases[i].gone, lines, &with) != 0)
            fail_msg("%zu: %s", i, error.text);
        const struct span span = {with.at, with.bytes};
        assert_non_null(strstr(with.at, "# BEGIN shoal"));
        assert_int_equal(strstr(cases[i].base, "\r\n") != NULL,
                         strstr(with.at, "1\r\n") != NULL && strstr(with.at, "shoal\r\n") != NULL);
        assert_int_equal(block_undo(&pool, &span, &without, &blocks, &error), 0);
        assert_int_equal(blocks, 1);
        assert_int_equal(without.bytes, strlen(cases[i].base));
        assert_memory_equal(without.at, cases[i].base, without.bytes);
    }
}

static void an_edit_that_would_change_others_is_refused(void **state)
{
    (void)state;
    struct text out;
    /* the key behind would be in our table */
    assert_int_equal(insert("a = 1\nb = 2\n", "b = 2", false, "[x]\n", &out), E_REFUSED);
    /* the result cannot be read */
    assert_int_equal(insert("[x]\na = 1\n", "", false, "[x]\n", &out), E_REFUSED);
    assert_string_equal(error.text, "4: a key or table that is there already");
    /* further mirrors would be of our registry */
    assert_int_equal(insert("[[r]]\n[[r.m]]\n", "[[r.m]]", false, "[[r]]\n", &out), E_REFUSED);
}

static void undo(const char *text, int err, const char *expected)
{
    const struct span with = {text, strlen(text)};
    struct span without;
    unsigned blocks;
    int got = block_undo(&pool, &with, &without, &blocks, &error);
    if (got != err)
        fail_msg("%s: %d %s", text, got, error.text);
    assert_string_equal(err == 0 ? without.at : error.text, expected);
}

static void blocks_among_edits_of_others(void **state)
{
    (void)state;
    undo("a = 1\n", 0, "a = 1\n");
    undo("# mine\n" BLOCK_BEGIN "\n[x]\ny = 1\n" BLOCK_END "\n[z]\n", 0, "# mine\n[z]\n");
    undo(BLOCK_BEGIN "\na = 1\n" BLOCK_END "\n" BLOCK_BEGIN "\n#was:b = 1\n" BLOCK_END "\n", 0,
         "b = 1\n");
    /* joined to nothing any more, since something stands behind */
    undo("a = 1\n" BLOCK_BEGIN "\n" BLOCK_JOINED "\n[x]\n" BLOCK_END "\n[z]\n", 0, "a = 1\n[z]\n");
    undo(BLOCK_BEGIN "\n[x]\ny = 1\n" BLOCK_END "\nz = 1\n", E_REFUSED,
         "keys of others stand in a table of ours; move them out of it");
    undo("[[r]]\n" BLOCK_BEGIN "\n[[r]]\n" BLOCK_END "\n[[r.m]]\n", E_REFUSED,
         "keys of others stand in a table of ours; move them out of it");
    undo(BLOCK_BEGIN "\na = 1\n", E_REFUSED,
         "1: a mark of shoal without its partner; take our lines out by hand");
    undo("a = 1\n" BLOCK_END "\n", E_REFUSED,
         "2: a mark of shoal without its partner; take our lines out by hand");
    undo(BLOCK_BEGIN "\n" BLOCK_BEGIN "\n" BLOCK_END "\n", E_REFUSED,
         "2: a mark of shoal without its partner; take our lines out by hand");
    undo("a = \n", E_REFUSED, "1: no value where one should be");
    /* a mark in a string is a string */
    undo("a = '''\n" BLOCK_BEGIN "\n'''\n", 0, "a = '''\n" BLOCK_BEGIN "\n'''\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values_of_every_kind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_that_are_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(paths_tables_and_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_there_twice, set_up, tear_down),
        cmocka_unit_test_setup_teardown(broken_text_says_where, set_up, tear_down),
        cmocka_unit_test_setup_teardown(too_many_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(strings_are_decoded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(quoted_strings_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(blocks_come_out_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_edit_that_would_change_others_is_refused, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(blocks_among_edits_of_others, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
