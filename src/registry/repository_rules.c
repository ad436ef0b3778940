/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which repositories of a registry go through the mesh (ACL-10), and what is made of its tags
 * (INT-9): rules of patterns and what they say, first fit wins.
 */
#include <string.h>

#include "registry.h"

/* '*' stands for any bytes, '/' among them. One look back suffices: the last '*' takes what the
 * ones before it could have. */
static bool fits(const char *pattern, const char *text)
{
    const char *star = NULL, *taken = NULL;

    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            taken = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star + 1;
            text = ++taken;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

bool registry_p2p(const struct registry_entry *registry, const char *repository)
{
    for (unsigned i = 0; i < registry->p2p_rule_count; i++)
        if (fits(registry->p2p_rules[i].pattern, repository))
            return registry->p2p_rules[i].on;
    return registry->p2p;
}

const struct registry_tag_rule *registry_tag_rule(const struct registry_entry *registry,
                                                  const char *repository, const char *tag)
{
    for (unsigned i = 0; i < registry->tag_rule_count; i++) {
        const struct registry_tag_rule *rule = &registry->tag_rules[i];

        if (fits(rule->repositories, repository) && fits(rule->tags, tag))
            return rule;
    }
    return NULL;
}

bool registry_p2p_storage(const struct registry_entry *registry)
{
    return registry->p2p && registry->p2p_rule_count == 0;
}
