"""Tools that were built on the cloud's interface, unmodified: Apache Libcloud's driver, and Ansible's modules.

Usage: tools.py HOST:PORT. The access key is testid/testsecret. Instances appear as network namespaces of their names.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

from alibabacloud_ecs20140526 import models as ecs_models
from alibabacloud_ecs20140526.client import Client as EcsClient
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models as vpc_models
from alibabacloud_vpc20160428.client import Client as VpcClient

ENDPOINT = sys.argv[1]
REGION = "cn-hangzhou"
HERE = pathlib.Path(__file__).parent


def config():
    return Config(
        access_key_id="testid", access_key_secret="testsecret", region_id=REGION, endpoint=ENDPOINT, protocol="http"
    )


ecs = EcsClient(config())
vpc = VpcClient(config())


def expect(what, value, wanted):
    if value != wanted:
        raise SystemExit(f"{what}: {value!r} instead of {wanted!r}")
    print(f"  {what}: {value}")


def pings(instance, address):
    command = ["ip", "netns", "exec", instance, "ping", "-c", "1", "-W", "1", address]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0


def make_group(vpc_id, name):
    request = ecs_models.CreateSecurityGroupRequest(region_id=REGION, vpc_id=vpc_id, security_group_name=name)
    return ecs.create_security_group(request).body.security_group_id


class Network:
    """A VPC, a vSwitch, a group and another one, for the time of a `with`."""

    def __enter__(self):
        request = vpc_models.CreateVpcRequest(region_id=REGION, cidr_block="10.0.0.0/16")
        self.vpc = vpc.create_vpc(request).body.vpc_id
        request = vpc_models.CreateVSwitchRequest(
            region_id=REGION, vpc_id=self.vpc, cidr_block="10.0.1.0/24", zone_id="cn-hangzhou-b"
        )
        self.vswitch = vpc.create_vswitch(request).body.v_switch_id
        self.groups = [make_group(self.vpc, name) for name in ("first", "second")]
        return self

    def __exit__(self, *_):
        # After a failure something may be left in them; that failure is what is told then.
        if sys.exc_info()[0] is not None:
            return
        for group in self.groups:
            ecs.delete_security_group(
                ecs_models.DeleteSecurityGroupRequest(region_id=REGION, security_group_id=group)
            )
        vpc.delete_vswitch(vpc_models.DeleteVSwitchRequest(region_id=REGION, v_switch_id=self.vswitch))
        vpc.delete_vpc(vpc_models.DeleteVpcRequest(region_id=REGION, vpc_id=self.vpc))


def libcloud(network):
    from libcloud.common.exceptions import BaseHTTPError
    from libcloud.compute.providers import get_driver
    from libcloud.compute.types import NodeState, Provider

    host, port = ENDPOINT.split(":")
    driver = get_driver(Provider.ALIYUN_ECS)(
        "testid", "testsecret", region=REGION, secure=False, host=host, port=int(port)
    )
    expect("regions", REGION in [location.id for location in driver.list_locations()], True)
    expect("zones", "cn-hangzhou-b" in [zone.id for zone in driver.ex_list_zones()], True)
    size = driver.list_sizes()[0]
    image = driver.list_images()[0]
    nodes = [
        driver.create_node(name, size, image, ex_security_group_id=network.groups[0], ex_vswitch_id=network.vswitch)
        for name in ("web", "client")
    ]
    web, client = nodes
    listed = {node.id: node for node in driver.list_nodes()}
    expect("nodes are running", [listed[node.id].state for node in nodes], [NodeState.RUNNING] * 2)
    address = listed[web.id].private_ips[0]
    expect("members of a group reach each other", pings(client.id, address), True)
    expect("one joins another group", driver.ex_join_security_group(client, group_id=network.groups[1]), True)
    expect("and leaves the first", driver.ex_leave_security_group(client, group_id=network.groups[0]), True)
    expect("now it does not reach the other", pings(client.id, address), False)
    rules = driver.ex_list_security_group_attributes(group_id=network.groups[0], nic_type="intranet")
    expect("rules of the group", len(rules), 0)
    expect("stopped", driver.stop_node(client), True)
    expect("it is", driver.list_nodes(ex_node_ids=[client.id])[0].state, NodeState.STOPPED)
    try:
        driver.ex_delete_security_group_by_id(group_id=network.groups[0])
        raise SystemExit("a group with members is deleted")
    except BaseHTTPError as error:
        expect("the code of a refusal is told", "DependencyViolation" in str(error), True)
    driver.stop_node(web)
    expect("destroyed", [driver.destroy_node(node) for node in nodes], [True, True])


def ansible(network):
    # The modules go to the cloud's own name, by http; a proxy is how they are led elsewhere.
    environment = {
        **os.environ, "http_proxy": f"http://{ENDPOINT}", "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false", "ANSIBLE_HOME": str(pathlib.Path(os.environ["SDK_WORK"])),
    }
    given = {
        "vswitch": network.vswitch, "first": network.groups[0], "second": network.groups[1],
        "ansible_python_interpreter": sys.executable,
    }
    playbook = pathlib.Path(sys.executable).with_name("ansible-playbook")
    command = [str(playbook), "--extra-vars", json.dumps(given), str(HERE / "playbook.yml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"ansible-playbook: {done.stdout}{done.stderr}")
    for line in done.stdout.splitlines():
        if line.startswith("TASK ["):
            print("  " + line[len("TASK ["):].split("]")[0])


def main():
    for name, packages, tour in [
        ("Apache Libcloud", ["libcloud"], libcloud),
        ("Ansible's community.general.ali_instance and ali_instance_info", ["ansible_collections", "footmark"], ansible),
    ]:
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            print(f"*** SKIPPED: {name}: this Python has no {', '.join(missing)}", file=sys.stderr)
            continue
        print(f"{name}:")
        with Network() as network:
            tour(network)
    left = vpc.describe_vpcs(vpc_models.DescribeVpcsRequest(region_id=REGION)).body.total_count
    expect("VPCs left", left, 0)


main()
