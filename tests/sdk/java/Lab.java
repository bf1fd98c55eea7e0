import com.aliyun.ecs20140526.models.*;
import com.aliyun.tea.TeaException;
import com.aliyun.teaopenapi.models.Config;
import com.aliyun.vpc20160428.models.CreateVSwitchRequest;
import com.aliyun.vpc20160428.models.CreateVpcRequest;
import com.aliyun.vpc20160428.models.DeleteVSwitchRequest;
import com.aliyun.vpc20160428.models.DeleteVpcRequest;
import com.aliyun.vpc20160428.models.DescribeVpcsRequest;
import com.aliyuncs.CommonRequest;
import com.aliyuncs.DefaultAcsClient;
import com.aliyuncs.IAcsClient;
import com.aliyuncs.exceptions.ClientException;
import com.aliyuncs.http.MethodType;
import com.aliyuncs.http.ProtocolType;
import com.aliyuncs.profile.DefaultProfile;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;

/**
 * A short lab through the cloud's official SDKs for Java, unmodified: made, proven by packets, changed, and ended.
 *
 * Usage: Lab HOST:PORT. The access key is testid/testsecret. Instances appear as network namespaces of their names.
 */
public class Lab {
    private static final String REGION = "cn-hangzhou";

    private final String endpoint;
    private final com.aliyun.ecs20140526.Client ecs;
    private final com.aliyun.vpc20160428.Client vpc;
    private final IAcsClient old;

    private Lab(String endpoint) throws Exception {
        Config config = new Config().setAccessKeyId("testid").setAccessKeySecret("testsecret").setRegionId(REGION)
            .setEndpoint(endpoint).setProtocol("http");
        this.endpoint = endpoint;
        ecs = new com.aliyun.ecs20140526.Client(config);
        vpc = new com.aliyun.vpc20160428.Client(config);
        old = new DefaultAcsClient(DefaultProfile.getProfile(REGION, "testid", "testsecret"));
    }

    private static void expect(String what, Object value, Object wanted) {
        if (!Objects.equals(value, wanted)) {
            throw new IllegalStateException(what + ": " + value + " instead of " + wanted);
        }
        System.out.println("  " + what + ": " + value);
    }

    private static boolean pings(String instance, String address) throws Exception {
        ProcessBuilder ping = new ProcessBuilder("ip", "netns", "exec", instance, "ping", "-c", "1", "-W", "1", address);
        return ping.redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor() == 0;
    }

    /** A call of the older SDK: signed the older way, answered as XML. */
    private String oldCall(String action, String... fields) throws ClientException {
        CommonRequest request = new CommonRequest();
        request.setSysDomain(endpoint);
        request.setSysProtocol(ProtocolType.HTTP);
        request.setSysMethod(MethodType.POST);
        request.setSysVersion("2014-05-26");
        request.setSysAction(action);
        for (int place = 0; place < fields.length; place += 2) {
            request.putQueryParameter(fields[place], fields[place + 1]);
        }
        return old.getCommonResponse(request).getData();
    }

    private String[] runInstance(String vSwitch, String group) throws Exception {
        RunInstancesRequest request = new RunInstancesRequest().setRegionId(REGION).setVSwitchId(vSwitch)
            .setSecurityGroupIds(List.of(group)).setInstanceType("ecs.g7.large").setImageId("any").setAmount(1);
        String id = ecs.runInstances(request).body.instanceIdSets.instanceIdSet.get(0);
        DescribeInstancesRequest asked =
            new DescribeInstancesRequest().setRegionId(REGION).setInstanceIds("[\"" + id + "\"]");
        var shown = ecs.describeInstances(asked).body.instances.instance.get(0);
        expect("an instance is", shown.status, "Running");
        return new String[] {id, shown.vpcAttributes.privateIpAddress.ipAddress.get(0)};
    }

    private void prove(List<String> groups, String client, String address) throws Exception {
        expect("before any rule", pings(client, address), false);
        var permission = new AuthorizeSecurityGroupRequest.AuthorizeSecurityGroupRequestPermissions()
            .setIpProtocol("ICMP").setPortRange("-1/-1").setSourceGroupId(groups.get(1)).setDescription("a b+c/é*~'()!");
        ecs.authorizeSecurityGroup(new AuthorizeSecurityGroupRequest().setRegionId(REGION)
            .setSecurityGroupId(groups.get(0)).setClientToken("java-1").setPermissions(List.of(permission)));
        expect("authorized through the new SDK (V3)", pings(client, address), true);
        DescribeSecurityGroupAttributeRequest asked =
            new DescribeSecurityGroupAttributeRequest().setRegionId(REGION).setSecurityGroupId(groups.get(0));
        var rule = ecs.describeSecurityGroupAttribute(asked).body.permissions.permission.get(0);
        expect("its description comes back", rule.description, "a b+c/é*~'()!");
        oldCall("RevokeSecurityGroup", "SecurityGroupId", groups.get(0), "IpProtocol", "icmp", "PortRange", "-1/-1",
            "SourceGroupId", groups.get(1));
        expect("revoked through the old SDK (V1)", pings(client, address), false);
    }

    private void refusals(String group) throws Exception {
        try {
            ecs.deleteSecurityGroup(new DeleteSecurityGroupRequest().setRegionId(REGION).setSecurityGroupId(group));
            throw new IllegalStateException("a group with members is deleted");
        } catch (TeaException error) {
            expect("the new SDK reads the code of a refusal", error.code, "DependencyViolation");
        }
        try {
            oldCall("DescribeSecurityGroupAttribute", "SecurityGroupId", "sg-none");
            throw new IllegalStateException("a group that is not there is described");
        } catch (ClientException error) {
            expect("the old SDK too", error.getErrCode(), "InvalidSecurityGroupId.NotFound");
        }
    }

    private void run() throws Exception {
        System.out.println("the SDKs for Java:");
        String network =
            vpc.createVpc(new CreateVpcRequest().setRegionId(REGION).setCidrBlock("10.0.0.0/16")).body.vpcId;
        String vSwitch = vpc.createVSwitch(new CreateVSwitchRequest().setRegionId(REGION).setVpcId(network)
            .setCidrBlock("10.0.4.0/24").setZoneId("cn-hangzhou-b")).body.vSwitchId;
        List<String> groups = new ArrayList<>();
        for (String name : List.of("web", "client")) {
            groups.add(ecs.createSecurityGroup(new CreateSecurityGroupRequest().setRegionId(REGION).setVpcId(network)
                .setSecurityGroupName(name)).body.securityGroupId);
        }
        String[] web = runInstance(vSwitch, groups.get(0));
        String[] client = runInstance(vSwitch, groups.get(1));
        prove(groups, client[0], web[1]);
        refusals(groups.get(0));
        ecs.deleteInstances(new DeleteInstancesRequest().setRegionId(REGION)
            .setInstanceId(List.of(web[0], client[0])).setForce(true));
        for (String group : groups) {
            ecs.deleteSecurityGroup(new DeleteSecurityGroupRequest().setRegionId(REGION).setSecurityGroupId(group));
        }
        vpc.deleteVSwitch(new DeleteVSwitchRequest().setRegionId(REGION).setVSwitchId(vSwitch));
        vpc.deleteVpc(new DeleteVpcRequest().setRegionId(REGION).setVpcId(network));
        expect("VPCs left", vpc.describeVpcs(new DescribeVpcsRequest().setRegionId(REGION)).body.totalCount, 0);
    }

    public static void main(String[] arguments) throws Exception {
        new Lab(arguments[0]).run();
    }
}
