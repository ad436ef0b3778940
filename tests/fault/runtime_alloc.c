/* SPDX-License-Identifier: Apache-2.0 */
/* D-9 for the runtime's configuration: each allocation fails once, in plan, apply and revert of
 * each runtime. No crash, no leak; the files are those from before or those wanted, and without the
 * failure everything goes on. */
#include "../unit/runtime_tree.h"

#define CERTS "/etc/containerd/certs.d/"

static const struct runtime_registry registries[] = {{"docker.io", false}, {"r.example.com", true}};

static struct runtime_options fresh(enum runtime_kind kind)
{
    struct runtime_options options = tree_options(kind, registries, 1);
    assert_int_equal(tree_make(NULL), 0);
    options.root = tree_root;
    tree_put("/etc/containerd/config.toml", "version = 2\nimports = ['conf.d/*.toml']\n");
    tree_put("/etc/containerd/conf.d/a.toml", "oom_score = 0\n");
    tree_put(CERTS "docker.io/ca.crt", "C");
    tree_put(CERTS "r.example.com/hosts.toml", "server = \"http://r.example.com\"\n");
    tree_put("/etc/containers/registries.conf", "[[registry]]\nlocation = 'docker.io'\n");
    tree_put("/etc/docker/daemon.json", "{\"bip\": \"1.2.3.4/24\"}\n");
    if (kind == RUNTIME_CONTAINERD) {
        options.registry_count = 2;
        options.set_config_path = true;
    }
    return options;
}

/* Runs with the n-th allocation failing; *reached tells whether there was one. A note may be lost
 * without an error. */
static int fails_at(const struct runtime_options *options, unsigned n, bool reverting,
                    bool *reached)
{
    tree_calls = 0;
    tree_fail_at = n;
    int err = reverting ? tree_revert(options) : tree_apply(options);
    *reached = tree_calls >= n;
    tree_fail_at = 0;
    assert_int_equal(tree_live, 0);
    assert_true(err >= 0 || (*reached && err == E_NO_MEMORY));
    return err;
}

static void same(const char *wanted)
{
    char *now = tree_picture();
    assert_string_equal(now, wanted);
    free(now);
}

static void story(enum runtime_kind kind)
{
    struct runtime_options options = fresh(kind);
    char *before = tree_picture();
    assert_true(tree_apply(&options) > 0);
    char *applied = tree_picture();
    assert_int_equal(tree_revert(&options), 0);
    bool reached = true;
    unsigned failed = 0;
    for (unsigned n = 1; reached; n++) {
        int err = fails_at(&options, n, false, &reached);
        failed += err < 0;
        same(err < 0 ? before : applied);
        assert_int_equal(tree_revert(&options), 0);
    }
    assert_true(failed > 10);
    failed = 0;
    reached = true;
    for (unsigned n = 1; reached; n++) {
        assert_true(tree_apply(&options) > 0);
        failed += fails_at(&options, n, true, &reached) < 0;
        assert_int_equal(tree_revert(&options), 0); /* the rest */
        same(before);
    }
    assert_true(failed > 5);
    free(before);
    free(applied);
}

static void containerd(void **state)
{
    (void)state;
    story(RUNTIME_CONTAINERD);
}

static void containers(void **state)
{
    (void)state;
    story(RUNTIME_CONTAINERS);
}

static void docker(void **state)
{
    (void)state;
    story(RUNTIME_DOCKER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(containerd, tree_end),
        cmocka_unit_test_teardown(containers, tree_end),
        cmocka_unit_test_teardown(docker, tree_end),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
