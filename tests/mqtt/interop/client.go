// A device with paho.mqtt.golang (MQTT 3.1.1): client PORT. What it has to do is in interop_run.py.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

type found struct {
	Present      []bool `json:"present"`
	Acknowledged int    `json:"acknowledged"`
	Heard        string `json:"heard"`
	Refused      byte   `json:"refused"`
	Alive        bool   `json:"alive"`
}

func must(token mqtt.Token) mqtt.Token {
	if !token.WaitTimeout(60*time.Second) || token.Error() != nil {
		fmt.Fprintln(os.Stderr, "it was not answered:", token.Error())
		os.Exit(1)
	}
	return token
}

func come(said *found) mqtt.Client {
	options := mqtt.NewClientOptions().AddBroker("tcp://127.0.0.1:" + os.Args[1]).SetClientID("go-4").SetCleanSession(false).SetProtocolVersion(4)
	options.SetKeepAlive(time.Second).SetPingTimeout(10*time.Second).SetAutoReconnect(false).SetWill("gone/go-4", "bye", 1, false)
	client := mqtt.NewClient(options)
	said.Present = append(said.Present, must(client.Connect()).(*mqtt.ConnectToken).SessionPresent())
	return client
}

func main() {
	said := found{}
	client := come(&said)
	tokens := []mqtt.Token{}
	for i := 0; i < 300; i++ {
		tokens = append(tokens, client.Publish(fmt.Sprintf("d/%d", i%3), byte(i%3), false, fmt.Sprint(i)))
	}
	for _, token := range tokens {
		must(token)
		said.Acknowledged++
	}
	large := make([]byte, 200000)
	for i := range large {
		large[i] = 'x'
	}
	must(client.Publish("d/large", 2, false, large))
	heard := make(chan string, 1)
	must(client.Subscribe("$tidegate/status", 0, func(_ mqtt.Client, message mqtt.Message) { heard <- string(message.Payload()) }))
	said.Heard = <-heard
	token := client.Subscribe("a/#", 1, nil)
	token.WaitTimeout(60 * time.Second)
	said.Refused = token.(*mqtt.SubscribeToken).Result()["a/#"]
	time.Sleep(2500 * time.Millisecond) // its keep-alive is one second
	said.Alive = client.IsConnected()
	client.Disconnect(250)
	come(&said)
	text, _ := json.Marshal(said)
	fmt.Println(string(text))
	os.Exit(0) // without a goodbye
}
