package main

import (
	"fmt"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func options(address, version, name string) *mqtt.ClientOptions {
	number := uint(4)
	if version == "3.1" {
		number = 3
	}
	return mqtt.NewClientOptions().AddBroker("tcp://" + address).SetProtocolVersion(number).SetClientID(name).
		SetAutoReconnect(false)
}

func publish3(address, version, name string, messages []message) {
	client := mqtt.NewClient(options(address, version, name).SetUsername("sender").SetPassword("sesame"))
	wait(client.Connect())
	var sent []mqtt.Token
	for _, m := range messages {
		sent = append(sent, client.Publish(m.topic, m.qos, m.retain, m.payload))
	}
	for _, token := range sent {
		wait(token)
	}
	client.Disconnect(250)
}

func subscribe3(address, version string, r reading) {
	left, done := r.count, make(chan struct{})
	handler := func(by string) mqtt.MessageHandler {
		return func(_ mqtt.Client, m mqtt.Message) {
			got(by, message{m.Qos(), m.Retained(), m.Payload(), m.Topic()}, &left, done)
		}
	}
	client := mqtt.NewClient(options(address, version, r.name).SetDefaultPublishHandler(handler("any")))
	if r.route != "" {
		client.AddRoute(r.route, handler("route"))
	}
	wait(client.Connect())
	token := client.Subscribe(r.filter, r.qos, nil).(*mqtt.SubscribeToken)
	wait(token)
	fmt.Println("ready", token.Result()[r.filter])
	<-done
	client.Disconnect(250)
}

func wait(token mqtt.Token) {
	token.Wait()
	check(token.Error())
}
