"""Builds a lab through the cloud's official SDKs, unmodified, and proves with packets that it obeys them.

Usage: lab.py HOST:PORT. The access key is testid/testsecret. Instances appear as network namespaces of their names.
"""

import json
import subprocess
import sys
import time

from alibabacloud_ecs20140526 import models as ecs_models
from alibabacloud_ecs20140526.client import Client as EcsClient
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models as vpc_models
from alibabacloud_vpc20160428.client import Client as VpcClient
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkecs.request.v20140526.AuthorizeSecurityGroupRequest import AuthorizeSecurityGroupRequest
from aliyunsdkecs.request.v20140526.DescribeEipAddressesRequest import DescribeEipAddressesRequest
from aliyunsdkecs.request.v20140526.DescribeSecurityGroupAttributeRequest import DescribeSecurityGroupAttributeRequest
from aliyunsdkecs.request.v20140526.RevokeSecurityGroupRequest import RevokeSecurityGroupRequest

ENDPOINT = sys.argv[1]
REGION = "cn-hangzhou"
PORT = 8080


def config(**more):
    return Config(
        access_key_id="testid", access_key_secret="testsecret", region_id=REGION, endpoint=ENDPOINT, protocol="http", **more
    )


ecs = EcsClient(config())
ecs_v1 = EcsClient(config(signature_algorithm="v2"))
vpc = VpcClient(config())
old = AcsClient("testid", "testsecret", REGION)


def old_call(request, method="POST", **fields):
    request.set_endpoint(ENDPOINT)
    request.set_protocol_type("http")
    request.set_method(method)
    for name, value in fields.items():
        getattr(request, "set_" + name)(value)
    return json.loads(old.do_action_with_exception(request))


def expect(what, value, wanted):
    if value != wanted:
        raise SystemExit(f"{what}: {value!r} instead of {wanted!r}")
    print(f"  {what}: {value}")


def inside(instance, *command):
    return subprocess.run(["ip", "netns", "exec", instance, *command], capture_output=True, timeout=20)


def connects(instance, address):
    return inside(instance, "nc", "-z", "-w", "1", address, str(PORT)).returncode == 0


def pings(instance, address):
    return inside(instance, "ping", "-c", "1", "-W", "1", address).returncode == 0


def wait(what, is_true):
    for _ in range(100):
        if is_true():
            return
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within 10 s")


def make_group(vpc_id, name):
    request = ecs_models.CreateSecurityGroupRequest(region_id=REGION, vpc_id=vpc_id, security_group_name=name)
    return ecs.create_security_group(request).body.security_group_id


def run_instance(vswitch, group, name):
    request = ecs_models.RunInstancesRequest(
        region_id=REGION, v_switch_id=vswitch, security_group_ids=[group], instance_type="ecs.g7.large",
        image_id="any", instance_name=name, amount=1, client_token=f"token-{name}",
    )
    instance = ecs.run_instances(request).body.instance_id_sets.instance_id_set[0]
    again = ecs.run_instances(request).body.instance_id_sets.instance_id_set[0]
    expect("the same token makes the same instance", again == instance, True)
    shown = ecs.describe_instances(
        ecs_models.DescribeInstancesRequest(region_id=REGION, instance_ids=json.dumps([instance]))
    ).body.instances.instance[0]
    expect(f"{name} is", shown.status, "Running")
    return instance, shown.vpc_attributes.private_ip_address.ip_address[0]


def rules(group):
    request = ecs_models.DescribeSecurityGroupAttributeRequest(region_id=REGION, security_group_id=group)
    return ecs.describe_security_group_attribute(request).body.permissions.permission


def prove(web_group, client_group, web, client, web_ip):
    print("rules, and what packets make of them:")
    expect("before any rule", connects(client, web_ip), False)
    permission = ecs_models.AuthorizeSecurityGroupRequestPermissions(
        ip_protocol="TCP", port_range=f"{PORT}/{PORT}", source_group_id=client_group, policy="Accept", priority="10",
        description="a b+c/é",
    )
    ecs.authorize_security_group(
        ecs_models.AuthorizeSecurityGroupRequest(
            region_id=REGION, security_group_id=web_group, permissions=[permission], client_token="tok-1"
        )
    )
    expect("authorized through the new SDK (V3)", connects(client, web_ip), True)
    expect("its description comes back", rules(web_group)[0].description, "a b+c/é")

    shown = old_call(DescribeSecurityGroupAttributeRequest(), method="GET", SecurityGroupId=web_group)
    rule = shown["Permissions"]["Permission"][0]
    expect("the old SDK sees the rule", rule["SourceGroupId"], client_group)
    old_call(
        RevokeSecurityGroupRequest(), SecurityGroupId=web_group, IpProtocol="tcp", PortRange=f"{PORT}/{PORT}",
        SourceGroupId=client_group, Priority="10", Policy="accept",
    )
    expect("revoked through the old SDK (V1, flat)", connects(client, web_ip), False)

    ecs_v1.authorize_security_group(
        ecs_models.AuthorizeSecurityGroupRequest(
            region_id=REGION, security_group_id=web_group, ip_protocol="tcp", port_range=f"{PORT}/{PORT}",
            source_cidr_ip="10.0.0.0/8", nic_type="intranet",
        )
    )
    expect("authorized through the new SDK in its V1 mode, flat", connects(client, web_ip), True)
    rule = rules(web_group)[0].security_group_rule_id
    ecs.modify_security_group_rule(
        ecs_models.ModifySecurityGroupRuleRequest(
            region_id=REGION, security_group_id=web_group, security_group_rule_id=rule, policy="drop"
        )
    )
    expect("the rule turned into a drop", connects(client, web_ip), False)
    ecs.revoke_security_group(
        ecs_models.RevokeSecurityGroupRequest(
            region_id=REGION, security_group_id=web_group, security_group_rule_id=[rule]
        )
    )
    expect("no ping yet", pings(client, web_ip), False)
    old_call(
        AuthorizeSecurityGroupRequest(), SecurityGroupId=web_group, IpProtocol="icmp", PortRange="-1/-1",
        SourceCidrIp="0.0.0.0/0",
    )
    expect("ping, authorized through the old SDK", pings(client, web_ip), True)
    ecs.join_security_group(ecs_models.JoinSecurityGroupRequest(security_group_id=web_group, instance_id=client))
    expect("members of one open group reach each other", connects(client, web_ip), True)
    ecs.modify_security_group_policy(
        ecs_models.ModifySecurityGroupPolicyRequest(
            region_id=REGION, security_group_id=web_group, inner_access_policy="Drop"
        )
    )
    expect("and not once it is closed", connects(client, web_ip), False)
    ecs.leave_security_group(ecs_models.LeaveSecurityGroupRequest(security_group_id=web_group, instance_id=client))


def refusals(web_group):
    print("refusals:")
    try:
        old_call(AuthorizeSecurityGroupRequest(), SecurityGroupId=web_group, IpProtocol="bad", SourceCidrIp="::")
        raise SystemExit("a bad protocol passed")
    except ServerException as error:
        expect("the old SDK reads the code", error.get_error_code(), "InvalidIpProtocol.ValueNotSupported")
        expect("and the status", error.get_http_status(), 400)
    stranger = EcsClient(
        Config(access_key_id="testid", access_key_secret="wrong", region_id=REGION, endpoint=ENDPOINT, protocol="http")
    )
    try:
        stranger.describe_regions(ecs_models.DescribeRegionsRequest())
        raise SystemExit("a wrong signature passed")
    except Exception as error:  # The SDK's class of it differs between versions.
        expect("a wrong signature is told", getattr(error, "code", ""), "SignatureDoesNotMatch")


def outside(vpc_id, vswitch, web, client_ip):
    print("addresses outside:")
    request = vpc_models.AllocateEipAddressRequest(region_id=REGION, name="web", bandwidth="10")
    eip = vpc.allocate_eip_address(request).body
    vpc.associate_eip_address(
        vpc_models.AssociateEipAddressRequest(region_id=REGION, allocation_id=eip.allocation_id, instance_id=web)
    )
    shown = old_call(DescribeEipAddressesRequest(), AllocationId=eip.allocation_id)["EipAddresses"]["EipAddress"][0]
    expect("the old SDK sees it", [shown["Status"], shown["InstanceId"] == web], ["InUse", True])
    request = ecs_models.DescribeInstancesRequest(region_id=REGION, instance_ids=json.dumps([web]))
    told = ecs.describe_instances(request).body.instances.instance[0].eip_address.ip_address
    expect("the instance has it", told == eip.eip_address, True)
    gateway = vpc.create_nat_gateway(
        vpc_models.CreateNatGatewayRequest(region_id=REGION, vpc_id=vpc_id, v_switch_id=vswitch, nat_type="Enhanced")
    ).body
    out = vpc.allocate_eip_address(vpc_models.AllocateEipAddressRequest(region_id=REGION)).body
    vpc.associate_eip_address(
        vpc_models.AssociateEipAddressRequest(
            region_id=REGION, allocation_id=out.allocation_id, instance_id=gateway.nat_gateway_id, instance_type="Nat"
        )
    )
    (sources,) = gateway.snat_table_ids.snat_table_id
    (forwards,) = gateway.forward_table_ids.forward_table_id
    request = vpc_models.CreateSnatEntryRequest(
        region_id=REGION, snat_table_id=sources, source_vswitch_id=vswitch, snat_ip=out.eip_address
    )
    vpc.create_snat_entry(request)
    request = vpc_models.CreateForwardEntryRequest(
        region_id=REGION, forward_table_id=forwards, external_ip=out.eip_address, external_port="80", ip_protocol="TCP",
        internal_ip=client_ip, internal_port=str(PORT),
    )
    vpc.create_forward_entry(request)
    request = vpc_models.DescribeSnatTableEntriesRequest(region_id=REGION, snat_table_id=sources)
    entry = vpc.describe_snat_table_entries(request).body.snat_table_entries.snat_table_entry[0]
    expect("the gateway translates", [entry.source_cidr, entry.status], ["10.0.1.0/24", "Available"])
    request = vpc_models.DescribeForwardTableEntriesRequest(region_id=REGION, forward_table_id=forwards)
    entry = vpc.describe_forward_table_entries(request).body.forward_table_entries.forward_table_entry[0]
    expect("and forwards", [entry.external_port, entry.internal_port], ["80", str(PORT)])
    vpc.delete_nat_gateway(
        vpc_models.DeleteNatGatewayRequest(region_id=REGION, nat_gateway_id=gateway.nat_gateway_id, force=True)
    )
    vpc.unassociate_eip_address(
        vpc_models.UnassociateEipAddressRequest(region_id=REGION, allocation_id=eip.allocation_id, instance_id=web)
    )
    for each in (eip, out):
        request = vpc_models.ReleaseEipAddressRequest(region_id=REGION, allocation_id=each.allocation_id)
        vpc.release_eip_address(request)


def main():
    print("a lab:")
    made = vpc.create_vpc(vpc_models.CreateVpcRequest(region_id=REGION, cidr_block="10.0.0.0/16", vpc_name="lab"))
    vpc_id = made.body.vpc_id
    shown = vpc.describe_vpcs(vpc_models.DescribeVpcsRequest(region_id=REGION, vpc_id=vpc_id)).body.vpcs.vpc[0]
    expect("the VPC is", shown.status, "Available")
    vswitch = vpc.create_vswitch(
        vpc_models.CreateVSwitchRequest(
            region_id=REGION, vpc_id=vpc_id, cidr_block="10.0.1.0/24", zone_id="cn-hangzhou-b"
        )
    ).body.v_switch_id
    web_group, client_group = make_group(vpc_id, "web"), make_group(vpc_id, "client")
    web, web_ip = run_instance(vswitch, web_group, "web")
    client, client_ip = run_instance(vswitch, client_group, "client")
    wait("a namespace", lambda: inside(web, "true").returncode == 0 and inside(client, "true").returncode == 0)
    server = subprocess.Popen(
        ["ip", "netns", "exec", web, sys.executable, "-m", "http.server", str(PORT)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        wait("a listener", lambda: f":{PORT}" in inside(web, "ss", "-ltn").stdout.decode())
        prove(web_group, client_group, web, client, web_ip)
        refusals(web_group)
        outside(vpc_id, vswitch, web, client_ip)
    finally:
        server.terminate()
        server.wait()
    print("the end:")
    ecs.stop_instance(ecs_models.StopInstanceRequest(instance_id=web))
    ecs.delete_instance(ecs_models.DeleteInstanceRequest(instance_id=web))
    ecs.delete_instances(
        ecs_models.DeleteInstancesRequest(region_id=REGION, instance_id=[client], force=True)
    )
    for group in (web_group, client_group):
        ecs.delete_security_group(ecs_models.DeleteSecurityGroupRequest(region_id=REGION, security_group_id=group))
    vpc.delete_vswitch(vpc_models.DeleteVSwitchRequest(region_id=REGION, v_switch_id=vswitch))
    vpc.delete_vpc(vpc_models.DeleteVpcRequest(region_id=REGION, vpc_id=vpc_id))
    left = vpc.describe_vpcs(vpc_models.DescribeVpcsRequest(region_id=REGION)).body.total_count
    enis = ecs.describe_network_interfaces(ecs_models.DescribeNetworkInterfacesRequest(region_id=REGION)).body
    expect("VPCs left", left, 0)
    expect("interfaces left", enis.total_count, 0)
    print("the SDKs drive the switch")


main()
