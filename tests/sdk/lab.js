// A short lab through the cloud's official SDKs for Node, unmodified: made, proven by packets, changed, and ended.
//
// Usage: lab.js HOST:PORT, with the packages of package.json beside it. The access key is testid/testsecret.

const { execFileSync, spawn } = require("node:child_process");
const { $OpenApiUtil } = require("@alicloud/openapi-core");
const Ecs = require("@alicloud/ecs20140526");
const { RPCClient } = require("@alicloud/pop-core");
const Vpc = require("@alicloud/vpc20160428");

const endpoint = process.argv[2];
const regionId = "cn-hangzhou";
const port = 8080;
const config = new $OpenApiUtil.Config({
  accessKeyId: "testid", accessKeySecret: "testsecret", regionId, endpoint, protocol: "http",
});
const ecs = new Ecs.default(config);
const vpc = new Vpc.default(config);
const old = new RPCClient({
  accessKeyId: "testid", accessKeySecret: "testsecret", endpoint: `http://${endpoint}`, apiVersion: "2014-05-26",
});

function expect(what, value, wanted) {
  if (value !== wanted) throw new Error(`${what}: ${value} instead of ${wanted}`);
  console.log(`  ${what}: ${value}`);
}

function succeeds(instance, ...command) {
  try {
    execFileSync("ip", ["netns", "exec", instance, ...command], { stdio: "ignore", timeout: 20000 });
    return true;
  } catch {
    return false;
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function wait(what, isTrue) {
  for (let turn = 0; turn < 100; turn++) {
    if (isTrue()) return;
    await pause(100);
  }
  throw new Error(`${what}: not within 10 s`);
}

async function makeGroup(vpcId, name) {
  const request = new Ecs.CreateSecurityGroupRequest({ regionId, vpcId, securityGroupName: name });
  return (await ecs.createSecurityGroup(request)).body.securityGroupId;
}

async function runInstance(vSwitchId, group, name) {
  const instanceType = "ecs.g7.large";
  const fields = { regionId, vSwitchId, securityGroupIds: [group], instanceType, imageId: "any", instanceName: name };
  const made = await ecs.runInstances(new Ecs.RunInstancesRequest({ ...fields, amount: 1 }));
  const id = made.body.instanceIdSets.instanceIdSet[0];
  const request = new Ecs.DescribeInstancesRequest({ regionId, instanceIds: JSON.stringify([id]) });
  const shown = (await ecs.describeInstances(request)).body.instances.instance[0];
  expect(`${name} is`, shown.status, "Running");
  return [id, shown.vpcAttributes.privateIpAddress.ipAddress[0]];
}

async function rules(group) {
  const request = new Ecs.DescribeSecurityGroupAttributeRequest({ regionId, securityGroupId: group });
  return (await ecs.describeSecurityGroupAttribute(request)).body.permissions.permission;
}

async function prove(web, client, address) {
  const connects = () => succeeds(client.id, "nc", "-z", "-w", "1", address, String(port));
  expect("before any rule", connects(), false);
  const permission = new Ecs.AuthorizeSecurityGroupRequestPermissions({
    ipProtocol: "TCP", portRange: `${port}/${port}`, sourceGroupId: client.group, policy: "Accept", priority: "10",
    description: "a b+c/é*~'()!",
  });
  const authorize = { regionId, securityGroupId: web.group, permissions: [permission], clientToken: "node-1" };
  await ecs.authorizeSecurityGroup(new Ecs.AuthorizeSecurityGroupRequest(authorize));
  expect("authorized through the new SDK (V3)", connects(), true);
  expect("its description comes back", (await rules(web.group))[0].description, "a b+c/é*~'()!");

  const post = { method: "POST" };
  const flat = {
    RegionId: regionId, SecurityGroupId: web.group, IpProtocol: "tcp", PortRange: `${port}/${port}`,
    SourceGroupId: client.group, Priority: 10,
  };
  await old.request("RevokeSecurityGroup", flat, post);
  expect("revoked through the old SDK (V1, POST)", connects(), false);
  const listed = {
    RegionId: regionId, SecurityGroupId: web.group,
    Permissions: [{ IpProtocol: "tcp", PortRange: `${port}/${port}`, SourceCidrIp: "10.0.0.0/8" }],
  };
  await old.request("AuthorizeSecurityGroup", listed, { method: "GET" });
  expect("authorized through the old SDK (V1, GET)", connects(), true);
  const ids = (await rules(web.group)).map((rule) => rule.securityGroupRuleId);
  const revoke = { regionId, securityGroupId: web.group, securityGroupRuleId: ids };
  await ecs.revokeSecurityGroup(new Ecs.RevokeSecurityGroupRequest(revoke));
  expect("revoked by its identifier", connects(), false);
}

async function refusals(web) {
  const unknown = { RegionId: regionId, SecurityGroupId: "sg-none" };
  const code = await old.request("DescribeSecurityGroupAttribute", unknown).then(() => "", (error) => error.code);
  expect("the old SDK reads the code of a refusal", code, "InvalidSecurityGroupId.NotFound");
  const request = new Ecs.DeleteSecurityGroupRequest({ regionId, securityGroupId: web.group });
  const refused = await ecs.deleteSecurityGroup(request).then(() => ({}), (error) => error);
  expect("the new SDK too", refused.code, "DependencyViolation");
  expect("and the status", refused.statusCode, 403);
}

async function end(vpcId, vSwitchId, members) {
  const instanceId = members.map((member) => member.id);
  await ecs.deleteInstances(new Ecs.DeleteInstancesRequest({ regionId, instanceId, force: true }));
  for (const { group } of members) {
    await ecs.deleteSecurityGroup(new Ecs.DeleteSecurityGroupRequest({ regionId, securityGroupId: group }));
  }
  await vpc.deleteVSwitch(new Vpc.DeleteVSwitchRequest({ regionId, vSwitchId }));
  await vpc.deleteVpc(new Vpc.DeleteVpcRequest({ regionId, vpcId }));
  expect("VPCs left", (await vpc.describeVpcs(new Vpc.DescribeVpcsRequest({ regionId }))).body.totalCount, 0);
}

async function main() {
  console.log("the SDKs for Node:");
  const block = new Vpc.CreateVpcRequest({ regionId, cidrBlock: "10.0.0.0/16", vpcName: "node" });
  const vpcId = (await vpc.createVpc(block)).body.vpcId;
  const within = { regionId, vpcId, cidrBlock: "10.0.2.0/24", zoneId: "cn-hangzhou-b" };
  const vSwitchId = (await vpc.createVSwitch(new Vpc.CreateVSwitchRequest(within))).body.vSwitchId;
  const web = { group: await makeGroup(vpcId, "web") };
  const client = { group: await makeGroup(vpcId, "client") };
  let address;
  [web.id, address] = await runInstance(vSwitchId, web.group, "web");
  [client.id] = await runInstance(vSwitchId, client.group, "client");
  await wait("a namespace", () => succeeds(web.id, "true") && succeeds(client.id, "true"));
  const listen = ["netns", "exec", web.id, "nc", "-l", "-k", "-n", String(port)];
  const server = spawn("ip", listen, { stdio: "ignore" });
  try {
    await wait("a listener", () => succeeds(web.id, "nc", "-z", "127.0.0.1", String(port)));
    await prove(web, client, address);
    await refusals(web);
  } finally {
    server.kill();
  }
  await end(vpcId, vSwitchId, [web, client]);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
