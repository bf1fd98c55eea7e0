// A short lab through the cloud's official SDK for Go, unmodified: made, proven by packets, changed, and ended.
//
// Usage: lab HOST:PORT. The access key is testid/testsecret. Instances appear as network namespaces of their names.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	ecs "github.com/alibabacloud-go/ecs-20140526/v7/client"
	"github.com/alibabacloud-go/tea/tea"
	vpc "github.com/alibabacloud-go/vpc-20160428/v6/client"
)

var region = tea.String("cn-hangzhou")

// must gives the answer of a call, or ends the lab.
func must[T any](answer T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return answer
}

func expect[T comparable](what string, value, wanted T) {
	if value != wanted {
		fmt.Fprintf(os.Stderr, "%s: %v instead of %v\n", what, value, wanted)
		os.Exit(1)
	}
	fmt.Printf("  %s: %v\n", what, value)
}

func pings(instance, address string) bool {
	return exec.Command("ip", "netns", "exec", instance, "ping", "-c", "1", "-W", "1", address).Run() == nil
}

func runInstance(client *ecs.Client, vswitch, group *string) (string, string) {
	request := &ecs.RunInstancesRequest{
		RegionId: region, VSwitchId: vswitch, SecurityGroupIds: []*string{group}, InstanceType: tea.String("ecs.g7.large"),
		ImageId: tea.String("any"), Amount: tea.Int32(1),
	}
	made := must(client.RunInstances(request)).Body.InstanceIdSets.InstanceIdSet
	ids := string(must(json.Marshal(made)))
	described := must(client.DescribeInstances(&ecs.DescribeInstancesRequest{RegionId: region, InstanceIds: &ids}))
	shown := described.Body.Instances.Instance[0]
	expect("an instance is", *shown.Status, "Running")
	return *made[0], *shown.VpcAttributes.PrivateIpAddress.IpAddress[0]
}

func main() {
	fmt.Println("the SDK for Go:")
	config := &openapi.Config{
		AccessKeyId: tea.String("testid"), AccessKeySecret: tea.String("testsecret"), RegionId: region,
		Endpoint: tea.String(os.Args[1]), Protocol: tea.String("http"),
	}
	instances, networks := must(ecs.NewClient(config)), must(vpc.NewClient(config))

	network := &vpc.CreateVpcRequest{RegionId: region, CidrBlock: tea.String("10.0.0.0/16")}
	vpcId := must(networks.CreateVpc(network)).Body.VpcId
	subnet := &vpc.CreateVSwitchRequest{
		RegionId: region, VpcId: vpcId, CidrBlock: tea.String("10.0.3.0/24"), ZoneId: tea.String("cn-hangzhou-b"),
	}
	vswitch := must(networks.CreateVSwitch(subnet)).Body.VSwitchId
	var groups []*string
	for _, name := range []string{"web", "client"} {
		request := &ecs.CreateSecurityGroupRequest{RegionId: region, VpcId: vpcId, SecurityGroupName: tea.String(name)}
		groups = append(groups, must(instances.CreateSecurityGroup(request)).Body.SecurityGroupId)
	}
	web, address := runInstance(instances, vswitch, groups[0])
	client, _ := runInstance(instances, vswitch, groups[1])

	expect("before any rule", pings(client, address), false)
	permission := &ecs.AuthorizeSecurityGroupRequestPermissions{
		IpProtocol: tea.String("ICMP"), PortRange: tea.String("-1/-1"), SourceGroupId: groups[1],
		Description: tea.String("a b+c/é*~'()!"),
	}
	must(instances.AuthorizeSecurityGroup(&ecs.AuthorizeSecurityGroupRequest{
		RegionId: region, SecurityGroupId: groups[0], ClientToken: tea.String("go-1"),
		Permissions: []*ecs.AuthorizeSecurityGroupRequestPermissions{permission},
	}))
	expect("authorized", pings(client, address), true)
	attribute := &ecs.DescribeSecurityGroupAttributeRequest{RegionId: region, SecurityGroupId: groups[0]}
	rule := must(instances.DescribeSecurityGroupAttribute(attribute)).Body.Permissions.Permission[0]
	expect("its description comes back", *rule.Description, "a b+c/é*~'()!")
	must(instances.RevokeSecurityGroup(&ecs.RevokeSecurityGroupRequest{
		RegionId: region, SecurityGroupId: groups[0], SecurityGroupRuleId: []*string{rule.SecurityGroupRuleId},
	}))
	expect("revoked by its identifier", pings(client, address), false)

	_, err := instances.DeleteSecurityGroup(&ecs.DeleteSecurityGroupRequest{RegionId: region, SecurityGroupId: groups[0]})
	var refusal *tea.SDKError
	expect("a refusal is an error of the SDK", errors.As(err, &refusal), true)
	expect("its code", *refusal.Code, "DependencyViolation")
	expect("its status", *refusal.StatusCode, 403)

	must(instances.DeleteInstances(&ecs.DeleteInstancesRequest{
		RegionId: region, InstanceId: tea.StringSlice([]string{web, client}), Force: tea.Bool(true),
	}))
	for _, group := range groups {
		must(instances.DeleteSecurityGroup(&ecs.DeleteSecurityGroupRequest{RegionId: region, SecurityGroupId: group}))
	}
	must(networks.DeleteVSwitch(&vpc.DeleteVSwitchRequest{RegionId: region, VSwitchId: vswitch}))
	must(networks.DeleteVpc(&vpc.DeleteVpcRequest{RegionId: region, VpcId: vpcId}))
	left := must(networks.DescribeVpcs(&vpc.DescribeVpcsRequest{RegionId: region}))
	expect("VPCs left", *left.Body.TotalCount, 0)
}
