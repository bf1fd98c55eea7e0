/* Rules as Sluice's bench writes them, one prefix a line, in a classifier of DPDK. */
#ifndef RULES_H
#define RULES_H

#include <rte_acl.h>
#include <rte_byteorder.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* What is classified: network order, as rte_acl wants it. For IPv4 the address is followed by the ports at once. */
struct acl_key_v4 {
    uint8_t protocol, unused[3];
    uint8_t far_side[4];
    uint16_t source_port, destination_port;
};
struct acl_key_v6 {
    uint8_t protocol, unused[3];
    uint8_t far_side[16];
    uint16_t source_port, destination_port;
};

#define FIELDS_MAX 7
RTE_ACL_RULE_DEF(acl_rule, FIELDS_MAX);

static void fail(const char *what)
{
    fprintf(stderr, "dpdk-parts: %s\n", what);
    exit(1);
}

static unsigned fields_of(bool is_v6, struct rte_acl_field_def *defs)
{
    unsigned words = is_v6 ? 4 : 1, count = 0;
    defs[count++] = (struct rte_acl_field_def){ RTE_ACL_FIELD_TYPE_BITMASK, 1, 0, 0, 0 };
    for (unsigned word = 0; word < words; word++, count++)
        defs[count] = (struct rte_acl_field_def){ RTE_ACL_FIELD_TYPE_MASK, 4, count, count, 4 + 4 * word };
    for (unsigned port = 0; port < 2; port++, count++)
        defs[count] = (struct rte_acl_field_def){ RTE_ACL_FIELD_TYPE_RANGE, 2, count, words + 1, 4 + 4 * words + 2 * port };
    return count;
}

/* Accept is an even result, drop an odd one; no match is 0. */
static uint32_t result_of(unsigned place, bool accepts)
{
    return 2 * (place + 1) + !accepts;
}

static bool accepts(uint32_t result)
{
    return result != 0 && result % 2 == 0;
}

static bool read_rule(FILE *file, struct acl_rule *rule, bool is_v6)
{
    unsigned place, accept, length, first, last, words = is_v6 ? 4 : 1;
    int protocol;
    char digits[40];
    if (fscanf(file, "%u %u %d %39s %u %u %u", &place, &accept, &protocol, digits, &length, &first, &last) != 7)
        return false;
    *rule = (struct acl_rule){ 0 };
    rule->data.category_mask = 1;
    rule->data.priority = RTE_ACL_MAX_PRIORITY - place;
    rule->data.userdata = result_of(place, accept);
    rule->field[0].value.u8 = protocol < 0 ? 0 : protocol;
    rule->field[0].mask_range.u8 = protocol < 0 ? 0 : 0xff;
    for (unsigned word = 0; word < words; word++) {
        char part[9] = { 0 };
        memcpy(part, digits + 8 * word, 8);
        unsigned before = 32 * word;
        rule->field[1 + word].value.u32 = strtoul(part, NULL, 16);
        rule->field[1 + word].mask_range.u32 = length <= before ? 0 : length - before > 32 ? 32 : length - before;
    }
    rule->field[words + 1].mask_range.u16 = 0xffff;
    rule->field[words + 2].value.u16 = first;
    rule->field[words + 2].mask_range.u16 = last;
    return true;
}

/* Returns the classifier, and how many rules it has. */
static struct rte_acl_ctx *read_rules(const char *path, bool is_v6, unsigned *rules)
{
    FILE *file = fopen(path, "r");
    if (!file)
        fail("the rules cannot be read");
    unsigned count = 0;
    for (int c; (c = fgetc(file)) != EOF;)
        count += c == '\n';
    rewind(file);
    struct rte_acl_config config = { .num_categories = 1 };
    config.num_fields = fields_of(is_v6, config.defs);
    struct rte_acl_param parameters = {
        .name = "rules", .socket_id = 0, .rule_size = RTE_ACL_RULE_SZ(config.num_fields), .max_rule_num = count + 1,
    };
    struct rte_acl_ctx *acl = rte_acl_create(&parameters);
    if (!acl)
        fail("rte_acl_create");
    struct acl_rule rule;
    for (*rules = 0; read_rule(file, &rule, is_v6); ++*rules)
        if (rte_acl_add_rules(acl, (const struct rte_acl_rule *)&rule, 1))
            fail("rte_acl_add_rules");
    if (*rules != count)
        fail("a line of the rules is not understood");
    fclose(file);
    if (rte_acl_build(acl, &config))
        fail("rte_acl_build");
    return acl;
}

#endif
